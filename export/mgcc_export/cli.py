"""Command line of the exporter; the only module of the package that prints."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mgcc_export.errors import UnavailableError
from mgcc_export.targets import ASKED, GROUNDERS, Recipe, Target, available, choose_recipe
from mgcc_export.tensorrt.settings import LEFT_TO_THE_DEVICE, AskedSettings, add_settings
from mgcc_ref.precision import Precision
from mgcc_runtime.commands.console import command, give, note, say
from mgcc_runtime.errors import EXIT_DONE, InputError
from mgcc_runtime.files import check_writable, write_atomically

if TYPE_CHECKING:
    from mgcc_export.cpu_build import CpuBuildReport
    from mgcc_export.options import BuildOptions
    from mgcc_export.predict.estimate import Estimate
    from mgcc_export.report.table import BuildReport

PROFILES = (
    "tiny",
    "story",
    "paper",
    "paper-2.7b",
    "paper-1.3b",
    "paper-tiny",
    "tiny-fast",
    "story-fast",
    "gill",
    "gill-tiny",
)  # as mgcc_ref.config has them, which takes long to import


@command("error", "; the stages already done are kept, run the same command to go on")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the exporter; returns the exit code (see `mgcc_runtime.commands.console`)."""
    try:
        return _run(_parser().parse_args(arguments))
    except MemoryError:
        raise UnavailableError("memory ran out; see --estimate, close other programs or use a larger machine") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="build_engines.py",
        description=f"Export a profile, stage by stage, to a bundle that the runtime loads. Built now: {available()}.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--profile", type=_profile, default="story", metavar="NAME|FILE.json",
                        help=f"what to export: {', '.join(PROFILES)}, or a profile of your own")  # fmt: skip
    parser.add_argument(
        "--target", choices=[t.value for t in Target], default=Target.CPU.value, help="where it will run"
    )
    parser.add_argument(
        "--precision", choices=[p.value for p in ASKED], default="fp32", help="auto chooses for each stage"
    )
    parser.add_argument("--stages", default="", metavar="A,B",
                        help="only these (below fp32 on the CPU: only these are lowered); empty: all")  # fmt: skip
    parser.add_argument("--weights", metavar="DIR|random", help="weights folder, or seeded random weights; unset: own")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="bundle; unset: build/PROFILE-TARGET-PRECISION[-random]"
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", default=Path("build/.cache"), help="finished stages")
    parser.add_argument("--report", type=Path, metavar="FILE.json", help="also write the report as JSON")
    parser.add_argument("--estimate", action="store_true", help="print disk, memory and time needed, for GPUs also "
                        "what a turn is predicted to take on the target's devices, and stop")  # fmt: skip
    parser.add_argument("--ignore-estimate", action="store_true", help="build even where the estimate does not fit")
    parser.add_argument("--scan", type=Path, metavar="DIR",
                        help="calibration data: scanned for what fp16 cannot hold; for TensorRT and the CPU also the "
                        "source of int8 ranges (unset: a build for the CPU captures its own); not used for a language "
                        "model that is built block by block, as the paper's are")  # fmt: skip
    parser.add_argument("--grounder", choices=[*GROUNDERS], help="what proposes boxes: the learned head, the language "
                        "model in context, or both, chosen with each request (unset: the profile's)")  # fmt: skip
    parser.add_argument("--layout-examples", type=Path, metavar="FILE.json",
                        help="worked examples of the in-context grounder (unset: ours); bundles have them as a file "
                        "that may be edited")  # fmt: skip
    parser.add_argument("--debug-stage", metavar="NAME", help="write this stage with inputs to reproduce a mismatch")
    add_settings(parser.add_argument_group("on a device, for the engines that its TensorRT builds"))
    return parser


def _run(args: argparse.Namespace) -> int:
    recipe = choose_recipe(Target(args.target), Precision(args.precision))
    stages = _stage_names(args.stages)
    weights, asked = _weights(args.weights), AskedSettings.of(args)
    if asked != LEFT_TO_THE_DEVICE and not recipe.on_device:
        raise InputError(
            f"--workspace and --timing-cache were given for target {recipe.target}, expected jetson or tensorrt, whose "
            "engines TensorRT builds on the device; leave them out"
        )
    if args.scan:
        from mgcc_calibration.data.samples import CalibrationData

        CalibrationData.open(args.scan)  # refused here rather than after the export
    if args.report:
        for path in (args.report, args.report.with_suffix(".md")):
            check_writable(path)
    started = time.monotonic()
    if recipe.note:
        note(recipe.note)
    say("starting: importing torch and the reference")
    _quieten()
    from mgcc_export.predict.estimate import estimate_build
    from mgcc_export.progress import ProgressPrinter
    from mgcc_export.report.table import estimate_line, estimate_table
    from mgcc_ref.weights import WeightsError

    options = _build_options(args, recipe, stages, weights)
    profile = options.chosen_profile()
    estimate = estimate_build(profile, stages, recipe)
    if args.estimate:
        from mgcc_export.predict.devices import device_lines

        give(estimate_table(estimate))
        for line in device_lines(profile, recipe, ranges=args.scan is not None):
            give(line)
        for shortage in _shortages(options, estimate):
            give(f"does not fit: {shortage}")
        return EXIT_DONE
    note(estimate_line(estimate))
    for shortage in _shortages(options, estimate):
        if not args.ignore_estimate:
            raise UnavailableError(f"{shortage}; --ignore-estimate builds all the same")
        say(f"warning: {shortage}")
    try:
        with ProgressPrinter(started) as progress:
            if args.debug_stage:
                return _debug(options, args.debug_stage, progress.report)
            if recipe.on_device:
                return _build_for_device(options, list(estimate.parameters), args.report, progress.report, asked)
            _build_and_tell(options, args.report, progress.report)
    except WeightsError as error:
        raise InputError(str(error)) from None
    return EXIT_DONE


def _build_options(
    args: argparse.Namespace, recipe: Recipe, stages: tuple[str, ...], weights: Path | Literal["random"] | None
) -> BuildOptions:
    """InputError if there is no such profile."""
    from mgcc_export.options import BuildOptions
    from mgcc_ref.config import ProfileError, get_profile

    try:
        name = get_profile(args.profile).name
    except ProfileError as error:
        raise InputError(str(error)) from None
    mark = "-random" if weights == "random" else ""
    out = args.out or Path("build") / f"{name}-{recipe.target}-{recipe.precision}{mark}"
    grounders = GROUNDERS[args.grounder] if args.grounder else ()
    return BuildOptions(
        args.profile, recipe, out, args.cache.resolve(), weights, stages, args.scan, grounders, args.layout_examples
    )


def _shortages(options: BuildOptions, estimate: Estimate) -> list[str]:
    """What this machine lacks for the build; names smaller language models, where the profile has some."""
    from mgcc_export.predict.estimate import estimate_build
    from mgcc_export.report.table import SMALLER, shortages
    from mgcc_ref.config import get_profile

    found = shortages(estimate, options.out, options.cache)
    if not found or "llm" not in estimate.parameters:
        return found
    names = SMALLER.get(options.profile, ())
    smaller = {name: estimate_build(get_profile(name), options.stages, options.recipe) for name in names}
    return shortages(estimate, options.out, options.cache, smaller)


def _build_and_tell(options: BuildOptions, report_path: Path | None, progress: Callable[[str, str], None]) -> None:
    """Build, write the report and say where both are."""
    report, text = _built(options, progress)
    if report_path:
        write_atomically(report_path, (json.dumps(report.to_json(), indent=1) + "\n").encode())
        write_atomically(report_path.with_suffix(".md"), text.encode())
        note(f"report: {report_path} and {report_path.with_suffix('.md')}")
    note(f"bundle: {report.bundle} ({report.bytes / 2**20:.1f} MiB, built in {report.elapsed_s:.0f} s)")


def _build_for_device(
    options: BuildOptions, stages: Sequence[str], report_path: Path | None, progress: Callable[[str, str], None],
    asked: AskedSettings,
) -> int:  # fmt: skip
    """On a device with TensorRT, engines in `options.out` and beside it the ONNX bundle that they are built from.

    Elsewhere `options.out` is the ONNX bundle, and the command that builds its engines on the device is printed.
    """
    from mgcc_export.bundle.rebuild import rebuild_command
    from mgcc_export.device_build import build_on_device, check_out, command_for, engines_here

    here, why_not = engines_here()
    if options.stages:
        here, why_not = False, "engines are built of whole bundles; leave out --stages for them"
    if not here:
        _build_and_tell(options, report_path, progress)
        if why_not:
            note(f"no engines here: {why_not}")
        if not options.stages:
            note(f"on the device: {command_for(options.out)}")
        return EXIT_DONE
    graphs = options.out.with_name(f"{options.out.name}-onnx")
    check_out(options.out, stages, graphs)
    note(f"TensorRT is here: {options.out} gets the engines, {graphs} the ONNX bundle that they are built from")
    _build_and_tell(replace(options, out=graphs), report_path, progress)
    build_on_device(graphs, options.out, progress, rebuild=rebuild_command(options), asked=asked)
    note(f"bundle: {options.out} (engines of this device); now run `mgcc verify --bundle {options.out}`")
    return EXIT_DONE


def _built(options: BuildOptions, progress: Callable[[str, str], None]) -> tuple[BuildReport | CpuBuildReport, str]:
    """Build and print the table of what was built; the report, and its text in Markdown."""
    if options.recipe.calibrated:
        from mgcc_export.cpu_build import build_for_cpu, cpu_table

        lowered = build_for_cpu(options, progress)
        note(cpu_table(lowered))
        return lowered, lowered.to_markdown()
    from mgcc_export.build import build
    from mgcc_export.report.markdown import report_markdown
    from mgcc_export.report.table import build_table

    report = build(options, progress)
    note(build_table(report))
    for equivalent in [s.lowered.command for s in report.stages if s.lowered and s.lowered.command]:
        note(f"equivalent: {equivalent}")
    return report, report_markdown(report)


def _debug(options: BuildOptions, name: str, progress: Callable[[str, str], None]) -> int:
    if options.recipe.calibrated:
        raise UnavailableError(
            f"--debug-stage compares graphs for GPU engines, and target cpu in {options.recipe.precision} has none; "
            f"use `python -m mgcc_calibration sensitivity --stage {name}`, or another target"
        )
    from mgcc_export.debug_stage import write_debug

    folder, command = write_debug(options, name, progress)
    note(f"debug: {folder} holds the stage's graphs, inputs and PyTorch's outputs; compare engines with\n{command}")
    return EXIT_DONE


def _stage_names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if text and not names:
        raise InputError(f"--stages {text!r} names no stage; give names separated by commas, such as unet,llm")
    return names


def _profile(text: str) -> str:
    """The name of a profile, or a file, which is read later; looked at before the imports, which take long."""
    if text in PROFILES or (text.endswith(".json") and Path(text).is_file()):
        return text
    raise argparse.ArgumentTypeError(f"invalid choice: {text!r} (choose from {', '.join(PROFILES)}, or FILE.json)")


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
