"""A stage's graphs with inputs, PyTorch's outputs and the Polygraphy command that compares engines on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mgcc_export.build import BuildOptions
from mgcc_export.errors import UnavailableError
from mgcc_export.fp16 import write_half
from mgcc_export.large_build import PartExamples, large_cases
from mgcc_export.lower import Lowered, lower_stage
from mgcc_export.reference import reference_cases
from mgcc_export.stage_build import Progress, StageBuilder, cases_of
from mgcc_export.stage_cache import StageCache
from mgcc_export.stages import ExampleMaker, Stage, collect_stages
from mgcc_export.targets import Precision, Target, choose_recipe
from mgcc_export.tensorrt_build import Profile, profiles_of
from mgcc_export.weight_only import Bits, write_quantised
from mgcc_ref.config import get_profile
from mgcc_ref.model import load_model
from mgcc_ref.parts import load_parts
from mgcc_runtime.files import link_or_copy
from mgcc_runtime.manifest import Tolerance

_CACHE = ("past_key_values.", "present.")
_LOADER = '''"""Inputs for `polygraphy run --data-loader-script`: one feed a case."""
from pathlib import Path

import numpy as np


def load_data():
    for path in sorted(Path(__file__).parent.glob("case-*.npz")):
        with np.load(path, allow_pickle=False) as file:
            yield {name[3:]: file[name] for name in file.files if name.startswith("in.")}
'''


def write_debug(options: BuildOptions, name: str, progress: Progress) -> tuple[Path, str]:
    """Write `options.out`/debug-NAME: NAME.onnx in fp32, lowered.onnx, case-N.npz (in.*, out.*) and data_loader.py.

    Where lowered.onnx, which is what a bundle gets, is wider than was asked for in some place, asked.onnx is the graph
    that missed its tolerance. Returns the folder and the command. Values out of tolerance do not stop it: that is when
    it is needed.
    """
    profile = get_profile(options.profile)
    progress("model", "loading weights")
    stage, maker, lengths = _opened(options, name)
    plain = choose_recipe(Target.CPU, Precision.FP32)
    built, _ = StageBuilder(profile, plain, maker, StageCache(options.cache), progress).obtain(stage)
    folder = options.out.resolve().parent / f"{options.out.name}-debug-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for path in built.folder.glob(f"{name}.onnx*"):
        link_or_copy(path, folder / path.name)
    progress(name, f"lowering to {options.recipe.precision}")
    cases = reference_cases(stage.module, stage.spec, lengths, lambda one: maker.inputs(stage.spec, one))
    source, target = built.folder / f"{name}.onnx", folder / "lowered.onnx"
    lowered = lower_stage(source, target, stage.spec, options.recipe.precision, cases)
    cache = [t.name for t in (*stage.spec.inputs, *stage.spec.outputs) if t.name.startswith(_CACHE)]
    boundary = cache if lowered.half_cache else []
    half = {t.name for t in stage.spec.inputs} & {*boundary}
    if lowered.reasons or lowered.remarks:
        _write_asked(source, folder / "asked.onnx", options.recipe.precision, lowered, boundary)
    for number, case in enumerate(cases):
        arrays = {f"in.{n}": v.astype(np.float16) if n in half else v for n, v in case.feeds.items()}
        arrays |= {f"out.{n}": v for n, v in case.outputs.items()}
        np.savez(folder / f"case-{number}.npz", allow_pickle=False, **arrays)
    (folder / "data_loader.py").write_text(_LOADER, encoding="utf-8")
    profiles = profiles_of(stage.spec, stage.axes)
    return folder, polygraphy_command(folder, options.recipe.target, profiles, lowered.tolerance)


def _opened(options: BuildOptions, name: str) -> tuple[Stage, ExampleMaker, list[dict[str, int]]]:
    """The stage with its weights, what makes its inputs, and the lengths to compare at."""
    profile = get_profile(options.profile)
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


def _write_asked(source: Path, target: Path, asked: Precision, lowered: Lowered, half: Sequence[str]) -> None:
    """The graph in the precision that was asked for, with nothing kept wider but what fp16 cannot hold."""
    if asked is Precision.FP16:
        write_half(source, target, lowered.scan.keep, half)
        return
    between = target.with_name("half.onnx")
    write_half(source, between, lowered.scan.keep, half)
    write_quantised(between, target, Bits.FOUR if asked is Precision.INT4 else Bits.EIGHT)
    for path in between.parent.glob(f"{between.name}*"):
        path.unlink()


def polygraphy_command(folder: Path, target: Target, profiles: tuple[Profile, ...], tolerance: Tolerance) -> str:
    """ONNX Runtime against the engine that the target uses; only ONNX Runtime for targets without one."""
    words = ["polygraphy", "run", str(folder / "lowered.onnx"), "--onnxrt"]
    if target in (Target.RTX, Target.JETSON):
        words += ["--trt", "--strongly-typed"]
        for profile in profiles[:1]:
            for option, place in (("min", 0), ("opt", 1), ("max", 2)):
                words += [
                    f"--trt-{option}-shapes",
                    *(f"{n}:[{','.join(map(str, e[place]))}]" for n, e in profile.items()),
                ]
    words += ["--data-loader-script", str(folder / "data_loader.py"), "--check-error-stat", "median"]
    words += ["--rtol", f"{tolerance.relative_l2:g}", "--atol", "1e-3"]
    prefix = "POLYGRAPHY_USE_TENSORRT_RTX=1 " if target is Target.RTX else ""
    return prefix + " ".join(words)
