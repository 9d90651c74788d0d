"""Engines on the device: `python -m mgcc_export.device_build --bundle DIR --out DIR` on a Jetson.

A TensorRT engine belongs to the GPU and version that built it, so a bundle for a Jetson is written with checked ONNX
stages and a plan; this turns it into one with engines. Needs numpy, tensorrt and mgcc_runtime; no torch.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgcc_export.engine_process import run_engine_job
from mgcc_export.errors import ExportError, OutputFolderError
from mgcc_export.tensorrt_build import EngineJob, command_of, profiles_of
from mgcc_runtime.bundle import MANIFEST, Bundle, FileEntry, sha256_of, write_manifest
from mgcc_runtime.contract import StageSpec, stages
from mgcc_runtime.engines.engine_record import read_record, record_path
from mgcc_runtime.errors import BundleError, MgccError

if TYPE_CHECKING:
    from mgcc_export.stages import Stage
    from mgcc_export.targets import Recipe

PLAN = "build_plan.json"
ENGINE = "tensorrt"  # the runtime's name of the engine that plays the result
WEIGHTS = ".onnx.data"  # files of graphs' weights, of one graph or of two; engines have their own
_COMMAND = "python -m mgcc_export.device_build --bundle {bundle} --out {out}"
#: The versions that the runtime's calls exist in: JetPack 6.1 to 7.2, and 11 on AGX Orin and Thor.
VERSIONS = (10, 3), (11, 5)


def build_plan(chosen: Sequence[Stage], recipe: Recipe, profile: str) -> dict[str, Any]:
    """build_plan.json: the one command to run on the device, and for each stage what it does there."""
    found = {}
    for stage in chosen:
        job = EngineJob(
            recipe.library, stage.name, f"{stage.name}.onnx", f"{stage.name}.engine", f"{stage.name}.engine.json",
            profiles_of(stage.spec, stage.axes), "",
        )  # fmt: skip
        found[stage.name] = {"profiles": [dict(p) for p in job.profiles], "equivalent": " ".join(command_of(job))}
    return {
        "schema": 1,
        "library": recipe.library,
        "versions": ">=10.3,<11.5",
        "install": "pip install 'mgcc-edge[jetson]'",
        "command": _COMMAND.format(bundle="DIR", out="DIR-engines"),
        "profile": profile,
        "stages": found,
    }


def command_for(bundle: Path) -> str:
    """The one command that builds the engines of a bundle, copied to the device under its own name."""
    return _command(bundle.name, f"{bundle.name}-engines")


def _command(bundle: Path | str, out: Path | str) -> str:
    return _COMMAND.format(bundle=shlex.quote(str(bundle)), out=shlex.quote(str(out)))


def build_on_device(bundle: Path, out: Path, report: Callable[[str], None], library: str = ENGINE) -> Path:
    """Build every stage's engine and write the bundle `out` that plays them; finished engines are kept and reused.

    `out` becomes a bundle only when its manifest is written, as the last file. BundleError, ExportError.
    """
    source = Bundle.open(bundle)
    if not source.has(PLAN):
        raise BundleError(f"bundle {bundle} has no {PLAN}; build one with `build_engines.py --target jetson`")
    _check_version(library)
    if (out / MANIFEST).exists() or (out.exists() and not out.is_dir()):
        raise OutputFolderError(f"{out} exists already; give a new folder with --out")
    out.mkdir(parents=True, exist_ok=True)
    specs = stages(source.manifest.dimensions)
    rebuild = _command(bundle, out)
    for number, spec in enumerate(specs, 1):
        started = time.monotonic()
        report(f"{spec.name} ({number} of {len(specs)}): building the engine")
        kept = _build_stage(source, spec, out, library, rebuild)
        done = "kept from an earlier run" if kept else f"done in {time.monotonic() - started:.0f} s"
        report(f"{spec.name}: {done}; equivalent: {read_record(out / f'{spec.name}.engine').command}")
    _finish(source, specs, out, library)
    return out


def _build_stage(source: Bundle, spec: StageSpec, out: Path, library: str, rebuild: str) -> bool:
    """Build one engine unless it is there already, of this graph and this library; says which."""
    graph = source.file(source.manifest.stages[spec.name].file)
    engine, mark = out / f"{spec.name}.engine", out / f".{spec.name}.done"
    axes = source.manifest.dimensions.axes
    weights = [entry.sha256 for name, entry in sorted(source.manifest.files.items()) if name.endswith(WEIGHTS)]
    key = " ".join((source.manifest.files[graph.name].sha256, *weights, _version(library)))
    if mark.is_file() and mark.read_text(encoding="utf-8") == f"{key} {sha256_of(engine) if engine.is_file() else ''}":
        return True
    run_engine_job(
        EngineJob(
            library, spec.name, str(graph.resolve()), str(engine.resolve()), str(record_path(engine).resolve()),
            profiles_of(spec, axes), rebuild,
        )
    )  # fmt: skip
    mark.write_text(f"{key} {sha256_of(engine)}", encoding="utf-8")
    return False


def _finish(source: Bundle, specs: Sequence[StageSpec], out: Path, library: str) -> None:
    """The other files, and the manifest last."""
    manifest = source.manifest
    graphs = {manifest.stages[s.name].file for s in specs}
    files: dict[str, FileEntry] = {}
    for name, entry in manifest.files.items():
        if name in graphs or name.endswith(WEIGHTS) or name == PLAN:
            continue
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((source.root / name).read_bytes())
        files[name] = entry
    entries = {}
    for spec in specs:
        engine = out / f"{spec.name}.engine"
        read_record(engine)
        for path in (engine, record_path(engine)):
            files[path.name] = FileEntry(path.stat().st_size, sha256_of(path))
        entries[spec.name] = replace(manifest.stages[spec.name], file=engine.name, engine=library)
        (out / f".{spec.name}.done").unlink(missing_ok=True)
    requires = {name: wanted for name, wanted in manifest.requires.items() if name != "onnxruntime"}
    built_with = {**manifest.built_with, library: _version(library)}
    write_manifest(out, replace(manifest, stages=entries, files=files, requires=requires, built_with=built_with))


def _version(library: str) -> str:
    try:
        return str(importlib.import_module(library).__version__)
    except ImportError as error:
        raise ExportError(
            f"the package {library} cannot be imported ({error}); on a Jetson it comes with JetPack "
            "(`apt install python3-libnvinfer`), in a virtual environment made with --system-site-packages"
        ) from None


def _check_version(library: str) -> None:
    """ExportError if it is absent, or a TensorRT outside of `VERSIONS`; TensorRT-RTX counts for itself."""
    text = _version(library)
    if library != ENGINE:
        return
    number = tuple(int(part) for part in text.split(".")[:2])
    if not VERSIONS[0] <= number < VERSIONS[1]:
        raise ExportError(f"TensorRT here is {text}, expected 10.3 to 11.4; use a JetPack that has one of these")


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the engines of a bundle on this device; returns the exit code."""
    parser = argparse.ArgumentParser(prog="mgcc_export.device_build", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="of build_engines.py --target jetson")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder of the bundle with engines")
    options = parser.parse_args(arguments)
    started = time.monotonic()

    def report(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - started:6.1f} s] {text}\n")

    try:
        out = build_on_device(options.bundle, options.out, report)
    except MgccError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"bundle: {out}; now run `mgcc verify --bundle {out}`\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
