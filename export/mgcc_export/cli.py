"""Command line of the exporter; the only module of the package that prints."""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from mgcc_export.errors import UnavailableError
from mgcc_export.targets import Precision, Target, available, choose_recipe
from mgcc_runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, InputError, MgccError
from mgcc_runtime.files import write_atomically

if TYPE_CHECKING:
    from mgcc_export.build import BuildOptions
    from mgcc_export.cpu_build import CpuBuildReport
    from mgcc_export.report import BuildReport

PROFILES = (
    "tiny",
    "story",
    "paper",
    "paper-2.7b",
    "paper-1.3b",
    "tiny-fast",
    "story-fast",
)  # as mgcc_ref.config has them, which takes long to import
_TICK_S = 10.0
_FINISHED = ("done", "kept from an earlier build")  # steps after which nothing is under way


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the exporter; returns the exit code: 0 done, 1 failed, 2 bad arguments or input."""
    try:
        args = _parser().parse_args(arguments)
    except SystemExit as stop:  # argparse has printed help (0) or its complaint (2)
        return int(stop.code or 0)
    try:
        return _run(args)
    except MgccError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted; the stages already done are kept, run the same command to go on", file=sys.stderr)
        return EXIT_FAILED
    except MemoryError:
        print("error: memory ran out; see --estimate, close other programs or use a larger machine", file=sys.stderr)
        return EXIT_FAILED
    except OSError as error:
        name = error.filename or "a file"
        print(f"error: {name} cannot be used ({error.strerror}); --estimate tells the space needed", file=sys.stderr)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build_engines.py",
        description=f"Export a profile, stage by stage, to a bundle that the runtime loads. Built now: {available()}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--profile", choices=PROFILES, default="story", help="what to export")
    parser.add_argument("--target", choices=[t.value for t in Target], default="cpu", help="where it will run")
    parser.add_argument(
        "--precision", choices=[p.value for p in Precision], default="fp32", help="auto chooses for each stage"
    )
    parser.add_argument("--stages", default="", metavar="A,B",
                        help="only these (below fp32 on the CPU: only these are lowered); empty: all")  # fmt: skip
    parser.add_argument("--weights", metavar="DIR|random", help="weights folder, or seeded random weights; unset: own")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="bundle; unset: build/PROFILE-TARGET-PRECISION[-random]"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", default=Path("build/.cache"), help="finished stages")
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="also write the report as JSON")
    parser.add_argument("--estimate", action="store_true", help="print disk, memory and time needed, and stop")
    parser.add_argument("--ignore-estimate", action="store_true", help="build even where the estimate does not fit")
    parser.add_argument("--scan", type=Path, metavar="DIR",
                        help="calibration data: scanned for what fp16 cannot hold; on a Jetson and on the CPU also the "
                        "source of int8 ranges (unset: a build for the CPU captures its own)")  # fmt: skip
    parser.add_argument("--debug-stage", metavar="NAME", help="write this stage with inputs to reproduce a mismatch")
    return parser


def _run(args: argparse.Namespace) -> int:
    recipe = choose_recipe(Target(args.target), Precision(args.precision))
    stages = _stage_names(args.stages)
    weights = _weights(args.weights)
    if args.scan:
        from mgcc_calibration.data import CalibrationData

        CalibrationData.open(args.scan)  # refused here rather than after the export
    started = time.monotonic()
    if recipe.note:
        print(recipe.note)
    print("starting: importing torch and the reference", file=sys.stderr)
    _quieten()
    from mgcc_export.build import BuildOptions
    from mgcc_export.estimate import estimate_build
    from mgcc_export.report import estimate_line, estimate_table, shortages
    from mgcc_ref.config import get_profile
    from mgcc_ref.weights import WeightsError

    estimate = estimate_build(get_profile(args.profile), stages, recipe)
    if args.estimate:
        print("\n".join([estimate_table(estimate), *(f"does not fit: {s}" for s in shortages(estimate, args.cache))]))
        return EXIT_DONE
    print(estimate_line(estimate))
    for shortage in shortages(estimate, args.cache):
        if not args.ignore_estimate:
            raise UnavailableError(f"{shortage}; --ignore-estimate builds all the same")
        print(f"warning: {shortage}", file=sys.stderr)
    mark = "-random" if weights == "random" else ""
    out = args.out or Path("build") / f"{args.profile}-{recipe.target}-{recipe.precision}{mark}"
    options = BuildOptions(args.profile, recipe, out, args.cache.resolve(), weights, stages, args.scan)
    try:
        with _ProgressPrinter(started) as progress:
            if args.debug_stage:
                return _debug(options, args.debug_stage, progress.report)
            report, text = _built(options, progress.report)
    except WeightsError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    if args.report:
        write_atomically(args.report, (json.dumps(report.to_json(), indent=1) + "\n").encode())
        write_atomically(args.report.with_suffix(".md"), text.encode())
        print(f"report: {args.report} and {args.report.with_suffix('.md')}")
    print(f"bundle: {report.bundle} ({report.bytes / 2**20:.1f} MiB, built in {report.elapsed_s:.0f} s)")
    if recipe.target is Target.JETSON:
        from mgcc_export.device_build import command_for

        print(f"on the device: {command_for(Path(report.bundle))}")
    return EXIT_DONE


def _built(options: BuildOptions, progress: Callable[[str, str], None]) -> tuple[BuildReport | CpuBuildReport, str]:
    """Build and print the table of what was built; the report, and its text in Markdown."""
    if options.recipe.calibrated:
        from mgcc_export.cpu_build import build_for_cpu, cpu_table

        lowered = build_for_cpu(options, progress)
        print(cpu_table(lowered))
        return lowered, lowered.to_markdown()
    from mgcc_export.build import build
    from mgcc_export.report import build_table
    from mgcc_export.report_text import report_markdown

    report = build(options, progress)
    print(build_table(report))
    for command in [s.lowered.command for s in report.stages if s.lowered and s.lowered.command]:
        print(f"equivalent: {command}")
    return report, report_markdown(report)


def _debug(options: BuildOptions, name: str, progress: Callable[[str, str], None]) -> int:
    if options.recipe.calibrated:
        raise UnavailableError(
            f"--debug-stage compares graphs for GPU engines, and target cpu in {options.recipe.precision} has none; "
            f"use `python -m mgcc_calibration sensitivity --stage {name}`, or another target"
        )
    from mgcc_export.debug_stage import write_debug

    folder, command = write_debug(options, name, progress)
    print(f"debug: {folder} holds the stage's graphs, inputs and PyTorch's outputs; compare engines with\n{command}")
    return EXIT_DONE


def _stage_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if text and not names:
        raise InputError(f"--stages {text!r} names no stage; give names separated by commas, such as unet,llm")
    return names


def _weights(text: str | None) -> Path | Literal["random"] | None:
    """What --weights says; InputError if it is neither "random" nor a folder."""
    if text is None:
        return None
    if text == "random":
        return "random"
    if not Path(text).is_dir():
        raise InputError(f"--weights {text} is no folder; give a folder of *.safetensors, or the word random")
    return Path(text)


def _quieten() -> None:
    """Keep notes of the libraries, which no user can act on, out of the build's output."""
    import logging
    import warnings

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore", category=UserWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("torch").setLevel(logging.ERROR)


class _ProgressPrinter:
    """Prints every step with the elapsed time, and a sign of life where one step takes long."""

    def __init__(self, started: float) -> None:
        self._started, self._step_started = started, time.monotonic()
        self._step = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> _ProgressPrinter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def report(self, stage: str, step: str) -> None:
        """Called by the build at each step."""
        self._print(f"{stage}: {step}")
        self._step, self._step_started = "" if step in _FINISHED else f"{stage}: {step}", time.monotonic()

    def _tick(self) -> None:
        next_tick_s = _TICK_S
        while not self._stop.wait(0.5):
            elapsed_s = time.monotonic() - self._step_started
            if elapsed_s < _TICK_S or not self._step:
                next_tick_s = _TICK_S
            elif elapsed_s >= next_tick_s:
                self._print(f"{self._step} ({elapsed_s:.0f} s so far)")
                next_tick_s = elapsed_s + _TICK_S

    def _print(self, text: str) -> None:
        print(f"[{time.monotonic() - self._started:6.1f} s] {text}", file=sys.stderr, flush=True)
