"""A stage's graphs with inputs, PyTorch's outputs and the Polygraphy command that compares engines on them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgcc_export.errors import UnavailableError
from mgcc_export.graphs.reference import reference_cases
from mgcc_export.large.answers import PartExamples, large_cases
from mgcc_export.options import BuildOptions
from mgcc_export.precision.fp16 import write_half
from mgcc_export.precision.ladder import Lowered
from mgcc_export.precision.weight_widths import Bits, write_quantised
from mgcc_export.progress import Progress
from mgcc_export.stages.answers import ModelAnswers, cases_of
from mgcc_export.stages.builder import StageBuilder
from mgcc_export.stages.cache import stage_cache
from mgcc_export.stages.stage import ExampleMaker, Stage, collect_stages
from mgcc_export.targets import Target, choose_recipe
from mgcc_export.tensorrt.builder import Profile, profiles_of
from mgcc_ref.model import load_model
from mgcc_ref.parts import load_parts
from mgcc_ref.precision import Precision
from mgcc_runtime.bundle.manifest import Tolerance
from mgcc_runtime.bundle.output_folder import OutputFolderError
from mgcc_runtime.files import copy_file
from mgcc_runtime.measure.golden import INPUT, StageGolden
from mgcc_runtime.names import CACHE_PREFIXES, graph_file

_LOADER_NAME, _RESULTS = "data_loader.py", "results.json"
_WRITTEN = ("lowered.onnx*", ".lowered.*", "asked.onnx*", "half.onnx*", "case-*.npz", _RESULTS)  # and NAME.onnx*
_LOADER = f'''"""Inputs for `polygraphy run --data-loader-script`: one feed a case."""
from pathlib import Path

import numpy as np


def load_data():
    for path in sorted(Path(__file__).parent.glob("case-*.npz")):
        with np.load(path, allow_pickle=False) as file:
            yield {{name[{len(INPUT)}:]: file[name] for name in file.files if name.startswith({INPUT!r})}}
'''


def write_debug(options: BuildOptions, name: str, progress: Progress) -> tuple[Path, str]:
    """Write `options.out`-debug-NAME: NAME.onnx in fp32, lowered.onnx, case-N.npz (in.*, out.*) and data_loader.py.

    Where lowered.onnx, which is what a bundle gets, is wider than was asked for in some place, asked.onnx is the graph
    that missed its tolerance. Returns the folder and the command. Values out of tolerance do not stop it: that is when
    it is needed. OutputFolderError if the folder holds files of others.
    """
    profile = options.chosen_profile()
    folder = _emptied(options.out.resolve().parent / f"{options.out.name}-debug-{name}", name)
    progress("model", "loading weights")
    stage, maker, lengths = _opened(options, name)
    plain, cache = choose_recipe(Target.CPU, Precision.FP32), stage_cache(options.cache)
    answers = ModelAnswers(maker)
    built, _ = StageBuilder(profile, plain, answers, cache, progress).obtain(stage)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _LOADER_NAME).write_text(_LOADER, encoding="utf-8")  # first: the mark that the folder is ours
    for path in built.folder.glob(f"{name}.onnx*"):
        copy_file(path, folder / path.name)
    cases = list(reference_cases(stage.module, stage.spec, lengths, lambda one: maker.inputs(stage.spec, one)))
    source, target = built.folder / graph_file(name), folder / "lowered.onnx"
    builder = StageBuilder(profile, options.recipe, answers, cache, progress, options.captured)
    progress(name, f"lowering to {builder.wanted(stage)}")
    lowered = builder.lower_graph(stage, source, target, cases, builder.wanted(stage))
    if lowered.golden:  # 8-bit activations are right on what the stage is really given, and were judged on that
        cases = [lowered.golden]
    inner = [t.name for t in (*stage.spec.inputs, *stage.spec.outputs) if t.name.startswith(CACHE_PREFIXES)]
    boundary = inner if lowered.half_cache else []
    half = {t.name for t in stage.spec.inputs} & {*boundary}
    if lowered.reasons or lowered.remarks:
        _write_asked(builder, stage, source, folder / "asked.onnx", lowered, boundary)
    for number, case in enumerate(cases):
        feeds = {n: v.astype(np.float16) if n in half else v for n, v in case.feeds.items()}
        arrays = StageGolden(feeds, case.outputs).arrays()
        np.savez(folder / f"case-{number}.npz", allow_pickle=False, **arrays)
    profiles = profiles_of(stage.spec, stage.axes)
    sizes = _sizes([case.outputs for case in cases])
    return folder, polygraphy_command(folder, options.recipe.target, profiles, lowered.tolerance, sizes)


def _write_asked(
    builder: StageBuilder, stage: Stage, source: Path, target: Path, lowered: Lowered, half: Sequence[str]
) -> None:
    """The graph in the precision that was asked for, with nothing kept wider but what fp16 cannot hold."""
    asked = builder.recipe.precision
    if asked is Precision.FP16:
        write_half(source, target, lowered.scan.keep, half)
        return
    between = target.with_name("half.onnx")
    write_half(source, between, lowered.scan.keep, half)
    boldest = builder.quantisers(stage, source)[:1] if asked is Precision.INT8 else ()
    if not any(quantise(between, target) is not None for quantise in boldest):
        write_quantised(between, target, Bits.FOUR if asked is Precision.INT4 else Bits.EIGHT)
    for path in between.parent.glob(f"{between.name}*"):
        path.unlink()


def _emptied(folder: Path, name: str) -> Path:
    """The folder without what an earlier run of this command wrote; OutputFolderError if it is not this command's."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return folder
    mark = folder / _LOADER_NAME
    if not mark.is_file() or not mark.read_bytes().startswith(_LOADER.splitlines()[0].encode()):
        raise OutputFolderError(
            f"{folder} holds files that --debug-stage did not write, so they are not replaced; "
            "move them, or give another place with --out"
        )
    for pattern in (f"{name}.onnx*", *_WRITTEN):
        for path in folder.glob(pattern):
            path.unlink()
    return folder


def _sizes(outputs: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, tuple[float, float]]:
    """Mean and largest magnitude of each result, in the case where it is smallest; at least 1e-6."""
    found: dict[str, tuple[float, float]] = {}
    for case in outputs:
        for name, value in ((n, np.abs(v.astype(np.float64))) for n, v in case.items() if v.size):
            mean, largest = found.get(name, (np.inf, np.inf))
            found[name] = (min(mean, max(value.mean(), 1e-6)), min(largest, max(value.max(), 1e-6)))
    return found


def _opened(options: BuildOptions, name: str) -> tuple[Stage, ExampleMaker, list[dict[str, int]]]:
    """The stage with its weights, what makes its inputs, and the lengths to compare at."""
    profile = options.chosen_profile()
    if not profile.llm.streamed:
        model = load_model(profile, options.weights)
        (stage,) = collect_stages(model, (name,))
        return stage, ExampleMaker(model), cases_of(stage)
    if name == "llm":
        raise UnavailableError(
            f"stage llm of profile {profile.name} is built block by block and never whole, so it has no files for "
            "--debug-stage; take --profile story, whose blocks go through the same steps"
        )
    parts = load_parts(profile, options.weights)
    parts.hold([s.name for s in collect_stages(parts.model, (name,))])
    (stage,) = collect_stages(parts.model, (name,))
    return stage, PartExamples(parts), large_cases(stage)


def polygraphy_command(
    folder: Path,
    target: Target,
    profiles: tuple[Profile, ...],
    tolerance: Tolerance,
    sizes: Mapping[str, tuple[float, float]],
) -> str:
    """ONNX Runtime against the engine that the target uses; only ONNX Runtime for targets without one.

    Of each result, the mean difference may be the tolerance's share of its mean magnitude, and the largest difference
    that share of its largest (`sizes`). Polygraphy checks one statistic at a time, the second on results it has saved.
    Its relative differences are no measure: a value near 0 makes any of them huge.
    """
    share = tolerance.relative_l2
    mean, most = (["--atol", *(f"{n}:{share * at[i]:.3g}" for n, at in sizes.items())] for i in (0, 1))
    words = ["polygraphy", "run", str(folder / "lowered.onnx"), "--onnxrt"]
    loader = ["--data-loader-script", str(folder / _LOADER_NAME)]
    if target not in (Target.RTX, Target.JETSON, Target.TENSORRT):
        return shlex.join([*words, *loader])
    words += ["--trt", "--strongly-typed"]
    for profile in profiles[:1]:
        for option, place in (("min", 0), ("opt", 1), ("max", 2)):
            words += [
                f"--trt-{option}-shapes",
                *(f"{n}:[{','.join(map(str, e[place]))}]" for n, e in profile.items()),
            ]
    saved = str(folder / _RESULTS)
    first = shlex.join([*words, *loader, "--save-outputs", saved, "--check-error-stat", "mean", *mean])
    second = shlex.join(["polygraphy", "run", "--load-outputs", saved, "--check-error-stat", "max", *most])
    prefix = "POLYGRAPHY_USE_TENSORRT_RTX=1 " if target is Target.RTX else ""
    return f"{prefix}{first} && {second}"
