"""Command line of the calibration; the only module of the package that prints."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mgcc_calibration.build import LEVELS, PrecisionOptions
from mgcc_calibration.candidates.candidate import CandidateOptions, Engines
from mgcc_calibration.candidates.selection import Budget
from mgcc_calibration.quantise.activation_ranges import Method
from mgcc_calibration.quantise.grid import Grid
from mgcc_calibration.quantise.matmul_nbits import Correction, WeightOptions
from mgcc_calibration.quantise.plan import PlanOptions, Smoothing
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.commands.console import Progress, command, give, note
from mgcc_runtime.errors import EXIT_DONE, InputError
from mgcc_runtime.files import check_output, write_atomically
from mgcc_runtime.machine import describe_machine
from mgcc_runtime.options import SEED, STEPS, THREADS, WORDS, Least, Number, WholeNumber

if TYPE_CHECKING:
    from mgcc_calibration.analysis.perplexity import Wording

_EACH_STEP_S = 0.0  # where standard error is no terminal, every step has a line


@command("error", "; nothing half done was left")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code (see `mgcc_runtime.commands.console`)."""
    options = _parser().parse_args(arguments)
    code: int = options.command(options)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mgcc_calibration", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_capture(_command(commands, "capture", _capture, "record what the stages of a bundle are given"))
    _add_build(_command(commands, "build", _build, "a bundle of lower precision for the CPU, and its report"))
    _add_sensitivity(_command(commands, "sensitivity", _sensitivity, "what each layer in int8 costs, and a picture"))
    text = _command(
        commands, "perplexity", _perplexity, "how well a bundle's language model predicts held-back stories"
    )
    text.add_argument("--against", type=Path, metavar="DIR", help="another bundle: share of equal likeliest tokens")
    _count(text, "stories", 8, "how many")
    _count(text, "tokens", 512, "at most, over all stories")
    rounding = _command(commands, "roundings", _roundings, "what rounding the language model's weights costs")
    rounding.add_argument("--data", type=Path, required=True, metavar="DIR", help="what `capture` wrote")
    _count(rounding, "stories", 8, "how many are predicted")
    _count(rounding, "tokens", 512, "at most, over all stories")
    rounding.add_argument("--out", type=Path, metavar="FILE.json", help="also write the figures there")
    scores = _command(commands, "report", _report, "enter StoryBench's scores into a bundle's report")
    scores.add_argument("--before", type=Path, required=True, metavar="FILE.json", help="of the fp32 bundle")
    scores.add_argument("--after", type=Path, required=True, metavar="FILE.json", help="of this bundle")
    text_of = "whether 8-bit products are exact on this CPU, and how fast they are"
    products = commands.add_parser("products", help=text_of, description=text_of)
    _count(products, "rounds", 20, "calls, of which the quickest counts")
    products.add_argument("--out", type=Path, metavar="FILE.json", help="also write the figures there")
    products.set_defaults(command=_products)
    return parser


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR", help="the bundle")
    THREADS.add_to(parser, 0, "of one stage; 0: one for each core")
    SEED.add_to(parser, 0, "of stories and noise")
    parser.set_defaults(command=run)
    return parser


def _count(parser: argparse.ArgumentParser, name: str, default: int, told: str, least: int = 1) -> None:
    WholeNumber(name, least, 1_000_000).add_to(parser, default, told)


def _add_capture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder for the data")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="your own NAME.json stories or NAME.txt texts")
    _count(parser, "requests", 8, "StoryWorld stories, where no folder is given")
    STEPS.add_to(parser, None, "denoising steps; unset: the bundle's default")
    WORDS.add_to(parser, 12, "of text a request, for the decode steps")
    parser.add_argument("--stages", default="", metavar="A,B", help="only these stages; empty: all")


def _add_method(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="what `capture` wrote")
    parser.add_argument("--method", type=Method, choices=list(Method), default=Method.MSE, help="of ranges")
    Number("percentile", 0, 100, "try 99.99", Least.LEFT_OUT).add_to(parser, 99.99, "of the method of that name")
    parser.add_argument("--smoothing", type=Smoothing, choices=list(Smoothing), default=Smoothing.SEARCH,
                        help="SmoothQuant for linear layers")  # fmt: skip
    _count(parser, "timestep_groups", 5, "of denoising steps, each counting alike")
    Number("least_db", -200, 200, "try 25").add_to(
        parser, None, "signal to noise of a stage, at least; unset: 25, 20 where pictures judge"
    )


def _add_build(parser: argparse.ArgumentParser) -> None:
    _add_method(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the new bundle")
    parser.add_argument(
        "--precision",
        type=Precision,
        choices=list(LEVELS),
        default=Precision.AUTO,
        metavar="|".join(LEVELS),
        help="auto: what is fastest here",
    )
    parser.add_argument("--stages", default="", metavar="A,B", help="only these, the others as they are; empty: all")
    parser.add_argument("--engines", type=Engines, choices=list(Engines), default=Engines.ALL,
                        help="what the device will have: onnxruntime leaves OpenVINO out")  # fmt: skip
    parser.add_argument("--correction", type=Correction, choices=list(Correction), default=Correction.GPTQ,
                        help="of rounded weights")  # fmt: skip
    _count(parser, "block", 32, "inputs of a weight that share a scale")
    _count(parser, "rounds", 10, "of timing, all candidates in each")
    _count(parser, "images", 2, "stories drawn with both bundles for the report", least=0)
    _count(
        parser,
        "judged",
        PrecisionOptions.judged,
        "pictures drawn to judge what is fastest for a stage; 0: none",
        least=0,
    )
    Number("least_same", 0, 1, "try 0.9").add_to(
        parser, Budget.least_same, "of them that must stay the same with that stage changed"
    )
    Number("ms_per_mb", 0, 1e6, "try 0").add_to(
        parser, Budget.ms_per_mb, "of a turn, that a MB of weights counts for; 0: speed alone decides"
    )
    _count(parser, "tokens", 256, "of text predicted with both for the report")


def _add_sensitivity(parser: argparse.ArgumentParser) -> None:
    _add_method(parser)
    parser.add_argument("--stage", required=True, help="which stage")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the JSON and the pictures")
    _count(parser, "images", 1, "stories drawn for the comparison side by side", least=0)
    parser.add_argument("--each-image", action="store_true", help="also draw them with each layer alone in int8")


def _plan_options(options: argparse.Namespace) -> PlanOptions:
    return PlanOptions(
        options.method, options.percentile, options.smoothing, options.timestep_groups, max(options.threads, 1)
    )


def _layers_db(options: argparse.Namespace) -> float:
    """Signal to noise up to which W8A8 gives layers back."""
    return CandidateOptions.least_db if options.least_db is None else float(options.least_db)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _capture(options: argparse.Namespace) -> int:
    from mgcc_calibration.data.capture import CaptureOptions, capture
    from mgcc_calibration.data.requests import folder_requests, storyworld_requests

    bundle = Bundle.open(options.bundle)
    folder = options.folder
    source = folder_requests(folder, options.seed) if folder else storyworld_requests(options.requests, options.seed)
    settings = CaptureOptions(
        seed=options.seed, steps=options.steps, words=options.words, stages=_names(options.stages),
        threads=options.threads,
    )  # fmt: skip
    with Progress(_EACH_STEP_S) as progress:
        data = capture(bundle, source, settings, options.out, lambda i, n: progress.show(f"request {i} of {n}"))
    for stage, entries in data.manifest.stages.items():
        note(f"{stage:15} {len(entries):5} samples {data.manifest.bytes_of(stage) / 1e6:9.1f} MB")
    note(f"{options.out}: {data.manifest.requests} requests in {data.manifest.elapsed_s:.0f} s ({source.description})")
    return EXIT_DONE


def _build(options: argparse.Namespace) -> int:
    from mgcc_calibration.build import build_low
    from mgcc_calibration.bundle.writer import BundleWriter
    from mgcc_calibration.data.samples import CalibrationData
    from mgcc_calibration.report import report_paths

    if options.out.exists() and any(options.out.iterdir()):
        raise InputError(f"{options.out} is not empty, expected a new folder for the bundle; give another or remove it")
    weights = WeightOptions(Grid(4, options.block), options.correction, threads=max(options.threads, 1))
    settings = PrecisionOptions(
        asked=options.precision,
        stages=_names(options.stages),
        candidates=CandidateOptions(_plan_options(options), weights, _layers_db(options), engines=options.engines),
        budget=Budget(options.least_db, options.least_same, options.ms_per_mb),
        rounds=options.rounds,
        threads=options.threads,
        judged=options.judged,
        images=options.images,
        tokens=options.tokens,
        seed=options.seed,
    )
    data, bundle = CalibrationData.open(options.data), Bundle.open(options.bundle)
    with BundleWriter(options.out) as writer, Progress(_EACH_STEP_S) as progress:
        report = build_low(bundle, data, writer, settings, lambda stage, text: progress.show(f"{stage}: {text}"))
    for name, stage in report.stages.items():
        chosen = stage.choice.chosen
        note(f"{name:15} {chosen.engine:12} {chosen.precision:13} {chosen.signal_to_noise_db or 0:6.1f} dB "
              f"{stage.bytes_before / 1e6:8.1f} to {stage.bytes_after / 1e6:8.1f} MB")  # fmt: skip
    note(f"{options.out}: {report.bytes_before / 1e6:.1f} to {report.bytes_after / 1e6:.1f} MB")
    note(f"report: {report_paths(options.out)[1]}")
    return EXIT_DONE


def _sensitivity(options: argparse.Namespace) -> int:
    from mgcc_calibration.analysis.stage_analysis import StudyOptions, study_stage
    from mgcc_calibration.data.samples import CalibrationData

    how = StudyOptions(
        _plan_options(options), _layers_db(options), options.images, options.seed, each_image=options.each_image
    )
    data = CalibrationData.open(options.data)
    with Progress(_EACH_STEP_S) as progress:
        found = study_stage(Bundle.open(options.bundle), data, options.stage, options.out, how, progress.show)
    for entry in found.errors[:10]:
        note(f"{entry.error:9.2e}  {entry.layer}")
    note(f"{found.quantised} layers in int8 at {found.signal_to_noise_db:.1f} dB, {len(found.kept)} kept")
    note(f"{options.out}: {options.stage}.json and pictures")
    return EXIT_DONE


def _perplexity(options: argparse.Namespace) -> int:
    from mgcc_calibration.analysis.perplexity import score_texts
    from mgcc_runtime.bundle.manifest import decoding_graph

    wording = _wording(options)
    scores = []
    for folder in filter(None, (options.bundle, options.against)):
        bundle = Bundle.open(folder)
        entry = decoding_graph(bundle.manifest)
        scores.append(score_texts(bundle, bundle.file(entry.file), wording, entry.engine))
        give(f"{folder}: perplexity {scores[-1].perplexity:.3f} on {scores[-1].tokens} tokens")
    if len(scores) == 2:
        give(f"the same likeliest token at {scores[0].agreement(scores[1]):.1%}")
    return EXIT_DONE


def _wording(options: argparse.Namespace) -> Wording:
    from mgcc_calibration.analysis.perplexity import Wording, story_texts

    return Wording(story_texts(options.stories, options.seed), options.tokens, options.threads)


def _roundings(options: argparse.Namespace) -> int:
    from mgcc_calibration.analysis.rounding_cost import compare_roundings, roundings_table
    from mgcc_calibration.data.samples import CalibrationData

    if options.out:
        check_output(options.out, ".json")
    bundle, data = Bundle.open(options.bundle), CalibrationData.open(options.data)
    with Progress(_EACH_STEP_S) as progress:
        scores = list(compare_roundings(bundle, data, _wording(options), progress.show))
    if options.out:
        found = {"machine": describe_machine(), "roundings": [asdict(score) for score in scores]}
        write_atomically(options.out, (json.dumps(found, indent=2) + "\n").encode())
    (note if options.out else give)(roundings_table(scores).rstrip("\n"))
    return EXIT_DONE


def _report(options: argparse.Namespace) -> int:
    from mgcc_calibration.report import add_storybench

    note("\n".join(map(str, add_storybench(options.bundle, options.before, options.after))))
    return EXIT_DONE


def _products(options: argparse.Namespace) -> int:
    from mgcc_calibration.analysis.product_speed import measure_products
    from mgcc_runtime.device.cpu_features import sums_bytes_in_16_bits
    from mgcc_runtime.measure.machine_load import LoadMeter

    if options.out:
        check_output(options.out, ".json")
    load, found = LoadMeter(), []
    for product in measure_products(max(options.rounds, 1)):
        found.append(product)
        (note if options.out else give)(str(product))
    if options.out:
        values = {"machine": describe_machine(), "sums_bytes_in_16_bits": sums_bytes_in_16_bits(),
                  "others_cores": load.others_cores(), "products": [asdict(product) for product in found]}  # fmt: skip
        write_atomically(options.out, (json.dumps(values, indent=1) + "\n").encode())
    return EXIT_DONE
