"""Read the Python interface of TensorRT's releases off their own bindings, into tests/runtime/tensorrt_api/.

    python tools/read_tensorrt_api.py [--release tensorrt-10.3.0] [--out DIR]

Needs pip and a C compiler, no GPU and no TensorRT: the bindings are ordinary wheels, and the libraries they link to are
replaced by ones of empty functions, which is enough to import them and read their own documentation. Only names,
signatures and the numbers of enumerations are taken from them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mgcc_runtime.commands.console import command, give, note
from mgcc_runtime.errors import EXIT_DONE

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "tests" / "runtime" / "tensorrt_api"
#: File of the release -> the distribution that has its bindings, and its version there.
RELEASES = {
    "tensorrt-10.3.0": ("tensorrt-cu12-bindings", "10.3.0"),  # JetPack 6.1 and 6.2
    "tensorrt-10.7.0": ("tensorrt-cu12-bindings", "10.7.0"),
    "tensorrt-10.13.3.9": ("tensorrt-cu12-bindings", "10.13.3.9"),  # JetPack 7.0 and 7.1
    "tensorrt-10.16.1.11": ("tensorrt-cu13-bindings", "10.16.1.11"),  # JetPack 7.2
    "tensorrt-11.0.0.114": ("tensorrt-cu13-bindings", "11.0.0.114"),
    "tensorrt-11.4.0.106": ("tensorrt-cu13-bindings", "11.4.0.106"),
    "tensorrt_rtx-1.7.1": ("tensorrt-rtx-cu13-bindings", "1.7.1.116"),
}
#: Classes that a project that builds and runs engines may use; those that a release lacks are left out of its file.
CLASSES = (
    "AttentionIOForm", "Builder", "BuilderFlag", "ComputeCapability", "CudaGraphStrategy", "DataType", "DeviceType",
    "Dims", "DynamicShapesKernelSpecializationStrategy", "EngineCapability", "EngineInspector",
    "EngineInvalidityDiagnostics", "EngineStat", "EngineValidity", "ErrorCode", "ExecutionContextAllocationStrategy",
    "HardwareCompatibilityLevel", "IAttention", "IBuilderConfig", "ICudaEngine", "IExecutionContext", "IGpuAllocator",
    "IHostMemory", "IKVCacheUpdateLayer", "ILayer", "ILogger", "INetworkDefinition", "IOptimizationProfile",
    "IOutputAllocator", "IProgressMonitor", "IRuntimeCache", "IRuntimeConfig", "ISerializationConfig", "IStreamReader",
    "IStreamReaderV2", "IStreamWriter", "ITensor", "ITimingCache", "KVCacheMode", "LayerInformationFormat", "LayerType",
    "Logger", "MemoryPoolType", "NetworkDefinitionCreationFlag", "OnnxParser", "OnnxParserFlag", "ParserError",
    "PreviewFeature", "ProfilingVerbosity", "QuantizationFlag", "Runtime", "RuntimePlatform", "SeekPosition",
    "SerializationFlag", "TacticSource", "TensorFormat", "TensorIOMode", "TensorLocation", "TilingOptimizationLevel",
)  # fmt: skip

#: Prefixes of type names in the bindings' documentation: modules of Python and namespaces of C++.
_PREFIX = re.compile(
    r"\b(?:tensorrt_rtx_bindings\.tensorrt_rtx|tensorrt_bindings\.tensorrt|tensorrt|typing_extensions|typing|"
    r"collections\.abc)\.|\b(?:\w+::)+"
)
_SPECIAL = ("__and__", "__bool__", "__enter__", "__getitem__", "__int__", "__le__", "__len__", "__setitem__")


def read_bindings(module: str) -> dict[str, Any]:
    """The interfaces of those `CLASSES` that an importable module of bindings has, by name."""
    bindings = importlib.import_module(module)
    return {name: _read_class(getattr(bindings, name)) for name in CLASSES if hasattr(bindings, name)}


def _read_class(cls: Any) -> dict[str, Any]:
    """An enumeration's values, or a class's members: signatures of a method, "property" or "read-only property"."""
    if hasattr(cls, "__members__"):
        values = {name: int(value) for name, value in cls.__members__.items()}
        return {"enumeration": values, "ordered": "__le__" in vars(cls)}
    found: dict[str, Any] = {}
    bases = [base for base in cls.__mro__[::-1] if base is not object and not base.__module__.startswith("pybind11")]
    for name, value in (item for base in bases for item in vars(base).items()):
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(value, property):
            found[name] = "property" if value.fset else "read-only property"
        elif isinstance(value, type):
            found[name] = _read_class(value)
        elif hasattr(type(value), "__members__"):
            found[name] = type(value).__name__  # a value of that enumeration, exported into the class
        elif signatures := _signatures(name, getattr(cls, name).__doc__ or ""):
            found[name] = signatures
    special = [name for name in _SPECIAL if any(name in vars(base) for base in bases)]
    return {"bases": [base.__name__ for base in bases[:-1]], "members": found, "special": special}


def _signatures(name: str, doc: str) -> list[str]:
    """Each overload of a method, from its own documentation, as Python writes it."""
    found = re.findall(rf"^(?:\d+\. )?{name}(\(.*\) -> .*)$", doc, re.MULTILINE)
    named = (re.sub(r"<(\w+\.\w+): -?\d+>", r"\1", one) for one in found)  # <Severity.WARNING: 2>
    return [_PREFIX.sub("", re.sub(r"<[^<>]* object at 0x\w+>", "...", one)) for one in named]


def read_release(release: str) -> dict[str, Any]:
    """The bindings of a release, by class: members with signatures, properties, values of enumerations."""
    distribution, version = RELEASES[release]
    module = "tensorrt_rtx_bindings" if release.startswith("tensorrt_rtx") else "tensorrt_bindings"
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _run(
            sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
            "--only-binary=:all:", "--dest", folder, f"{distribution}=={version}",
        )  # fmt: skip
        for wheel in work.glob("*.whl"):
            zipfile.ZipFile(wheel).extractall(work / "site")
        for library in (work / "site" / module).glob("*.so"):
            make_stubs(library, work / "stubs")
        # -S: an installed TensorRT-RTX would bring its real library along
        environment = {
            "PYTHONPATH": f"{work / 'site'}{os.pathsep}{ROOT / 'runtime'}",
            "LD_LIBRARY_PATH": str(work / "stubs"),
        }
        told = _run(sys.executable, "-S", __file__, "--bindings", module, environment=environment)
    library, _, text = release.partition("-")
    return {"library": library, "version": text, "classes": json.loads(told.splitlines()[-1])}


def make_stubs(bindings: Path, out: Path) -> None:
    """Libraries of empty functions in the place of those that the bindings link to."""
    out.mkdir(exist_ok=True)
    needed = re.findall(r"NEEDED.*\[(lib(?:nv|tensorrt)[^]]*)]", _run("readelf", "-d", str(bindings)))
    wanted = [line.split()[-1].partition("@")[0] for line in _run("nm", "-D", "-u", str(bindings)).splitlines()]
    empty = [n for n in wanted if re.search("Infer|Onnx|Plugin|tensorrt", n) and not n.startswith("_Z")]
    source = out / "stubs.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in empty))
    for name in needed:
        _run("cc", "-shared", "-fPIC", "-w", "-o", str(out / name), str(source), f"-Wl,-soname,{name}")


def _run(*command: str, environment: dict[str, str] | None = None) -> str:
    settings = {**os.environ, **(environment or {})}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=settings).stdout


@command("read_tensorrt_api.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files; returns the exit code."""
    parser = argparse.ArgumentParser(prog="read_tensorrt_api.py", description=__doc__.splitlines()[0])
    parser.add_argument("--release", choices=RELEASES, action="append", help="default: all")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR")
    parser.add_argument("--bindings", metavar="MODULE", help="print what this module offers, and nothing else")
    options = parser.parse_args(arguments)
    if options.bindings:
        give(json.dumps(read_bindings(options.bindings)))
        return EXIT_DONE
    options.out.mkdir(parents=True, exist_ok=True)
    for release in options.release or RELEASES:
        path = options.out / f"{release}.json"
        path.write_text(json.dumps(read_release(release), indent=0, sort_keys=True) + "\n", encoding="utf-8")
        note(str(path))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
