"""Engines on the device: `python -m mgcc_export.device_build --bundle DIR --out DIR` on a Jetson, or any other GPU.

A TensorRT engine belongs to the GPU and version that built it, so a bundle for the targets jetson and tensorrt is
written with checked ONNX stages and a plan; this turns it into one with engines. Needs numpy, tensorrt and
mgcc_runtime, no torch, and Python 3.10 or later. Engines grow in a hidden folder beside the output, which takes the
output's place when all are done: a run that was stopped goes on there, and a bundle that was there before is whole
until the new one is.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from mgcc_export.errors import ExportError
from mgcc_export.progress import Progress, ProgressPrinter
from mgcc_export.tensorrt.builder import EngineJob, command_of, profiles_of
from mgcc_export.tensorrt.parser_facts import BEFORE, OLDEST, written
from mgcc_export.tensorrt.process import run_engine_job
from mgcc_export.tensorrt.settings import (
    LEFT_TO_THE_DEVICE,
    AskedSettings,
    BuilderSettings,
    add_settings,
    choose_settings,
)
from mgcc_runtime.bundle.folder import Bundle, FileEntry, sha256_of, write_manifest
from mgcc_runtime.bundle.output_folder import BusyError, OutputFolderError, check_replaceable
from mgcc_runtime.commands.console import command, note
from mgcc_runtime.contract import StageSpec, stages
from mgcc_runtime.engines import way_to_get
from mgcc_runtime.engines.tensorrt.record import read_record, record_path
from mgcc_runtime.errors import EXIT_DONE, BundleError, EngineError
from mgcc_runtime.files import copy_file, hidden_beside, recover, replace_folder, write_atomically
from mgcc_runtime.machine import available_memory_bytes
from mgcc_runtime.names import PLAN, WEIGHTS_SUFFIX, EngineName, engine_file, graph_file, record_file
from mgcc_runtime.reading import read_json

if TYPE_CHECKING:
    from mgcc_export.stages.stage import Stage
    from mgcc_export.targets import Recipe
    from mgcc_ref.config import Profile

ENGINE = EngineName.TENSORRT  # the runtime's name of the engine that plays the result
_COMMAND = "python -m mgcc_export.device_build --bundle {bundle} --out {out}"
_MIB = 2**20


def build_plan(chosen: Sequence[Stage], recipe: Recipe, profile: Profile) -> dict[str, Any]:
    """build_plan.json: the one command to run on the device, and for each stage what it does there and what it needs.

    `memory_bytes` is of the process that builds the engine, `seconds` what TensorRT-RTX takes on two desktop cores.
    """
    from mgcc_export.predict.estimate import engine_needs  # by way of torch, which a device that reads the plan has not

    needs = engine_needs(profile, [stage.name for stage in chosen], recipe.precision)
    found = {}
    for stage in chosen:
        job = EngineJob(
            recipe.library, stage.name, graph_file(stage.name), engine_file(stage.name),
            record_file(engine_file(stage.name)), profiles_of(stage.spec, stage.axes), "",
        )  # fmt: skip
        memory, seconds = needs[stage.name]
        found[stage.name] = {
            "profiles": [dict(p) for p in job.profiles],
            "equivalent": " ".join(command_of(job)),
            "estimate": {"memory_bytes": memory, "seconds": round(seconds)},
        }
    return {
        "schema": 1,
        "library": recipe.library,
        "versions": f">={written(OLDEST)},<{written(BEFORE)}",
        "install": f"pip install 'mgcc-edge[{recipe.target}]'",
        "command": _COMMAND.format(bundle="DIR", out="DIR-engines"),
        "profile": profile.name,
        "stages": found,
    }


def command_for(bundle: Path) -> str:
    """The one command that builds the engines of a bundle, copied to the device under its own name."""
    return _command(bundle.name, f"{bundle.name}-engines")


def _command(bundle: Path | str, out: Path | str) -> str:
    return _COMMAND.format(bundle=shlex.quote(str(bundle)), out=shlex.quote(str(out)))


def build_on_device(
    bundle: Path, out: Path, report: Progress, library: str = "", rebuild: str = "",
    asked: AskedSettings = LEFT_TO_THE_DEVICE,
) -> Path:  # fmt: skip
    """Build every stage's engine and write the bundle `out` that plays them; an earlier bundle there is replaced.

    `report` is told (stage, step). `rebuild` is the command that the engines' records name; unset: this one. `asked`:
    of the builder's settings, what is not left to the device; TensorRT-RTX, which times nothing, has none.
    Engines that an interrupted run has finished are kept. BundleError, ExportError, OutputFolderError, BusyError.
    """
    library = library or ENGINE
    source = Bundle.open(bundle)
    if not source.has(PLAN):
        raise BundleError(
            f"bundle {bundle} has no {PLAN}; build one with `build_engines.py --target jetson` or tensorrt"
        )
    _check_version(library)
    specs = stages(source.manifest.dimensions)
    check_out(out, [spec.name for spec in specs], bundle)
    settings = choose_settings(asked, _version(library)) if library == ENGINE else BuilderSettings()
    with _EngineFolder(out) as folder:
        report("estimate", _needs(source))
        report("builder", settings.told())
        for number, spec in enumerate(specs, 1):
            report(spec.name, f"building the engine ({number} of {len(specs)})")
            kept = _build_stage(source, spec, folder.work, library, rebuild or _command(bundle, out), settings)
            report(spec.name, "kept from an earlier build" if kept else "done")
            report(spec.name, f"equivalent: {read_record(folder.work / engine_file(spec.name)).command}")
        report("bundle", "checking all files")
        _finish(source, specs, folder.work, library)
        folder.commit()
        report("bundle", "done")
    return out


def _needs(source: Bundle) -> str:
    """Memory and time that the engines' build needs, from the plan, as a sentence."""
    plan = read_json(source.file(PLAN), "build plan")
    found = [stage["estimate"] for stage in plan["stages"].values() if "estimate" in stage]
    if not found:
        return "not known, the plan is of an older exporter"
    memory, free = max(one["memory_bytes"] for one in found), available_memory_bytes()
    told = f", of {free / _MIB:.0f} available now" if free else ""
    short = "; that may be too little, so close other programs" if free and free < memory else ""
    return (
        f"about {memory / _MIB:.0f} MiB of memory{told}{short}; at least {sum(one['seconds'] for one in found):.0f} s, "
        "and several times that where TensorRT times kernels on a small device"
    )


def _build_stage(
    source: Bundle, spec: StageSpec, work: Path, library: str, rebuild: str, settings: BuilderSettings
) -> bool:
    """Build one engine, unless one of this graph and library is finished already; returns whether it was."""
    graph = source.file(source.manifest.stages[spec.name].file)
    engine, mark = work / engine_file(spec.name), work / f".{spec.name}.done"
    weights = [entry.sha256 for name, entry in sorted(source.manifest.files.items()) if name.endswith(WEIGHTS_SUFFIX)]
    key = " ".join((source.manifest.files[graph.name].sha256, *weights, _version(library), settings.kept_by))
    job = EngineJob(
        library, spec.name, str(graph.resolve()), str(engine.resolve()), str(record_path(engine).resolve()),
        profiles_of(spec, source.manifest.dimensions.axes), rebuild, settings.workspace_bytes, settings.timing_cache,
    )  # fmt: skip
    kept = _is_done(engine, mark, key)
    if not kept:
        run_engine_job(job)
    # also of a kept one: the run that built it may have been given other paths
    record = replace(read_record(engine), rebuild=rebuild, command=" ".join(command_of(job, shlex.quote(str(graph)))))
    write_atomically(record_path(engine), (json.dumps(record.to_json()) + "\n").encode())
    if not kept:
        mark.write_text(f"{key} {sha256_of(engine)}", encoding="utf-8")
    return kept


def _is_done(engine: Path, mark: Path, key: str) -> bool:
    if not all(path.is_file() for path in (engine, record_path(engine), mark)):
        return False
    return mark.read_bytes() == f"{key} {sha256_of(engine)}".encode()


def _finish(source: Bundle, specs: Sequence[StageSpec], work: Path, library: str) -> None:
    """Copy the other files and write the manifest last; the marks of finished engines stay until `commit`."""
    manifest = source.manifest
    graphs = {manifest.stages[s.name].file for s in specs}
    files: dict[str, FileEntry] = {}
    for name, entry in manifest.files.items():
        if name in graphs or name.endswith(WEIGHTS_SUFFIX) or name == PLAN:
            continue
        copy_file(source.root / name, work / name)
        files[name] = entry
    entries = {}
    for spec in specs:
        engine = work / engine_file(spec.name)
        for path in (engine, record_path(engine)):
            files[path.name] = FileEntry(path.stat().st_size, sha256_of(path))
        entries[spec.name] = replace(manifest.stages[spec.name], file=engine.name, engine=library)
    for path in work.rglob("*"):  # of another bundle that was begun here
        if path.is_file() and path.relative_to(work).as_posix() not in files and path.suffix != ".done":
            path.unlink()
    requires = {name: wanted for name, wanted in manifest.requires.items() if name != EngineName.ONNXRUNTIME}
    built_with = {**manifest.built_with, library: _version(library)}
    write_manifest(work, replace(manifest, stages=entries, files=files, requires=requires, built_with=built_with))
    Bundle.open(work)


def check_out(out: Path, stage_names: Iterable[str], bundle: Path) -> None:
    """OutputFolderError if `out` may not be replaced: no bundle, one with more stages, or `bundle` itself."""
    if out.resolve() == bundle.resolve():
        raise OutputFolderError(
            f"--out {out} is the bundle that engines are built from, which is kept; give another folder with --out"
        )
    check_replaceable(out, stage_names, "which this one has not; give another folder with --out")


class _EngineFolder:
    """Context manager that owns an output folder and the hidden one beside it, `work`, where its engines grow.

    BusyError if another build has it. The lock is that of `BundleWriter`, which cannot be used here: it needs packages
    that a device has not.
    """

    def __init__(self, out: Path) -> None:
        self.out = out.resolve()
        self.work = hidden_beside(self.out, "engines")
        self._lock: TextIO | None = None

    def __enter__(self) -> _EngineFolder:
        import fcntl  # Windows has none, and nothing that TensorRT builds a Jetson's engines on

        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._lock = hidden_beside(self.out, "lock").open("a", encoding="ascii")
        except OSError as error:
            raise OutputFolderError(
                f"folder {self.out} cannot be made ({error.strerror}); give a writable place with --out"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system frees it when a build is killed
            self._recover()
        except BaseException as error:
            self._lock.close()
            if not isinstance(error, BlockingIOError):
                raise
            raise BusyError(
                f"another build writes into {self.out} now; wait for it to end, or give another folder with --out"
            ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._lock is not None
        self._lock.close()

    def _recover(self) -> None:
        """Clear away what a killed build left, but for engines that it had finished."""
        recover(self.out)
        self.work.mkdir(exist_ok=True)

    def commit(self) -> None:
        """Put the finished bundle in its place, then remove the marks: a build killed before that loses no engine."""
        replace_folder(self.work, self.out)
        for mark in self.out.glob(".*.done"):
            mark.unlink()


def engines_here(library: str = "") -> tuple[bool, str]:
    """Whether this machine can build engines; where it has TensorRT but cannot use it, why, in one sentence."""
    library = library or ENGINE
    try:
        _check_version(library)
        _check_gpu()
    except (ExportError, EngineError) as error:
        absent = isinstance(error.__cause__, ModuleNotFoundError) and error.__cause__.name == library
        return False, "" if absent else str(error)
    return True, ""


def _check_gpu() -> None:
    """EngineError where the system has no driver or no GPU: engines are timed on the device as they are built."""
    from mgcc_runtime.device.cuda_driver import Device

    Device.named()


def _version(library: str) -> str:
    try:
        return str(importlib.import_module(library).__version__)
    except (ImportError, OSError) as error:
        raise ExportError(
            f"the package {library} cannot be imported ({error}); {way_to_get(library, error)}"
        ) from error


def _check_version(library: str) -> None:
    """ExportError if it is absent, or a TensorRT that is not supported; TensorRT-RTX counts for itself."""
    text = _version(library)
    if library != ENGINE:
        return
    number = tuple(int(part) for part in text.split(".")[:2])
    if not OLDEST <= number < BEFORE:
        raise ExportError(
            f"TensorRT here is {text}, expected 10.3 to 11.4; install one of these, on a Jetson with its JetPack"
        )


@command("error", "; the engines already built are kept, run the same command to go on")
def main(arguments: Sequence[str] | None = None) -> int:
    """Build the engines of a bundle on this device; returns the exit code."""
    parser = argparse.ArgumentParser(prog="mgcc_export.device_build", description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="of --target jetson or tensorrt")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="bundle with engines; replaced if there")
    add_settings(parser)
    options = parser.parse_args(arguments)
    asked = AskedSettings.of(options)
    with ProgressPrinter(time.monotonic()) as progress:
        out = build_on_device(options.bundle, options.out, progress.report, asked=asked)
    note(f"bundle: {out}; now run `mgcc verify --bundle {out}`")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
