"""What a build will need, from parameter counts alone: nothing is loaded or downloaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from mgcc_export.stages.stage import choose_specs
from mgcc_export.targets import Form, Recipe, Target, choose_recipe
from mgcc_ref.config import Profile
from mgcc_ref.planner.counts import held, narrow_parameters, without_weights
from mgcc_ref.precision import Precision

_FP32_BYTES = 4
#: Bytes of a weight with its share of scales; what stays wider (norms, small and edge weights) is a few per cent.
_WEIGHT_BYTES = {
    Precision.FP32: 4.0, Precision.FP16: 2.0, Precision.INT8: 1.05,
    Precision.INT4: 1.05,  # of what does not take 4 bits
    Precision.AUTO: 4.0,  # at most: a stage that is fastest in fp32 stays there
}  # fmt: skip
#: In blocks of 128 or 64, each with a scale in fp16. Measured: OPT-6.7B's engine, 0.52.
_NARROW_BYTES = 0.53
#: Of an engine beside its weights: the kernels that stand ready (the tiny profile's engines are little else).
_KERNEL_BYTES = 6 * 2**20
#: A second profile, for single steps, gets matrices laid out anew: SmolLM2's fp16 engine has 280 MiB with one profile
#: and 504 with both; in int8, 204 with both for 143 of weights.
_DECODE_COPY = 0.87
#: Of the process that builds an engine, and of each weight there. Measured: the paper's UNet in fp16, 9.5 GB (8.7 a
#: weight); 4-bit weights are unpacked: OPT-6.7B 15.1 GB (2.2), OPT-1.3B 3.8 GB (2.7). What the exporter's own process
#: is reckoned to hold beside it makes these sums a fifth to a third too large. fp32 and int8: three copies, a guess.
_BUILDER_BYTES = 260 * 2**20
_BUILDER_BYTES_PER_WEIGHT = {
    Precision.FP32: 12.8, Precision.FP16: 8.8, Precision.INT8: 3.4, Precision.INT4: 2.35, Precision.AUTO: 12.8,
}  # fmt: skip
_LOWER_SECONDS, _LOWER_SECONDS_PER_MILLION = 4.0, 0.3
#: Below fp32 on the CPU: capture, the graphs of all candidates, their timing and judging (tiny; the story took 508 s);
#: calibration data is little but the language model's cache: so many full ones.
_CALIBRATION_SECONDS, _CALIBRATION_SECONDS_PER_MILLION = 12.0, 3.1
_CAPTURED_CACHES = 8
#: 105 s for the paper's UNet in fp16 (1069 M parameters), 108 for OPT-6.7B in int4, whose blocks are all alike.
_ENGINE_SECONDS, _ENGINE_SECONDS_PER_MILLION = 5.0, 0.1
_STREAMED_ENGINE_SECONDS_PER_MILLION = 0.02
#: Measured on two cores: what a stage costs whatever its size, and what tracing, checking and comparing its
#: parameters cost on top.
_SECONDS_PER_STAGE = 7.0
_WITHOUT_WEIGHTS_SECONDS = 1.5  # export, comparison, engine
_SECONDS_PER_MILLION_PARAMETERS = 0.6
_START_SECONDS = 15.0
#: The story's stages have up to 135 M parameters. Those beyond so many cost less, to export and to lower. Measured: the
#: paper's UNet (1069 M) in fp16 for rtx, 400 s in all and 105 of them the engine; both of its UNets for a Jetson, 378 s
#: with the first one's fp32 graph from the cache, so about 500 without. These give a fifth more, for two UNets two.
_SMALL_MILLIONS = 150.0
_LARGE_SECONDS_PER_MILLION, _LARGE_LOWER_SECONDS_PER_MILLION = 0.1, 0.13
#: A streamed language model, of each of its parts (blocks and both ends), exported, lowered and compared, and on top
#: of each million parameters. Measured: OPT-6.7B in int4, 34 parts, 1315 s with its engine, of which these make a
#: quarter more; OPT-1.3B, 26 parts, took 1600 s beside much other work, and that is not reckoned with.
_PART_SECONDS, _STREAMED_SECONDS_PER_MILLION = 25.0, 0.1
#: The libraries; and the model, the traced stage, its serialised form and the session that checks it.
_BASE_BYTES = 900 * 2**20
_COPIES_OF_LARGEST_STAGE = 3
#: Of a streamed model: of a stage, whose module goes before its graph is run, and of a block or the table.
_STREAMED_COPIES = 3
_SEGMENT_COPIES = 5
#: Activations at once for each pixel of the picture. Measured: Stable Diffusion's VAE decoder at 512x512, 3.6 GB; its
#: UNet with GLIGEN's gates, whole build in fp16, 14.5 GiB, of which three copies of the weights are 12: a fifth more.
_PIXEL_BYTES = {"unet": 12_000, "unet_plain": 12_000, "vae_decoder": 15_000}
#: Of the streamed language model's weights as they are stored: parts mapped into memory while they are put together.
#: Measured: OPT-6.7B in int4, 10.1 GiB in all, of which the weights are 3.2.
_MAPPED_WEIGHTS, _MAPPED_BYTES = 1.7, 0.6
_GRAPH_BYTES = 150_000  # nodes and shapes of a stage
_GOLDEN_BYTES = 4 * 2**20
#: Of a runtime that has the bundle open: interpreter, engine and activations, beside weights and cache.
_RUNTIME_BYTES = 150 * 2**20


@dataclass(frozen=True)
class Estimate:
    """Needs of one build. Times hold for two current CPU cores."""

    parameters: dict[str, int]  # by stage
    bundle_bytes: int
    peak_memory_bytes: int
    seconds: float
    device_memory_bytes: int
    cache_bytes: int = 0  # on disk beside the bundle


def estimate_build(profile: Profile, stage_names: Sequence[str] = (), recipe: Recipe | None = None) -> Estimate:
    """Disk, memory and time of building a profile, in fp32 for the CPU if no recipe is given.

    UnavailableError for an unknown stage.
    """
    recipe = recipe or choose_recipe(Target.CPU, Precision.FP32)
    model = without_weights(profile)
    specs = choose_specs(profile.name, model.dimensions, stage_names)
    counts = {s.name: _parameters(model.stage(s.name)) for s in specs}
    stored = {s.name: _stored_bytes(model.stage(s.name), recipe.precision) for s in specs}
    d = model.dimensions
    table = d.vocabulary * d.hidden * _FP32_BYTES
    weights = sum(stored.values())
    on_device = weights  # also of ONNX files: each stage is given weights of its own there, shared on disk or not
    if recipe.form is Form.ENGINE or recipe.on_device:
        on_device += len(specs) * _KERNEL_BYTES
        if recipe.precision in (Precision.FP32, Precision.FP16):
            on_device += int(_DECODE_COPY * stored.get("llm", 0))
    if recipe.form is Form.ENGINE:
        weights = on_device
    shared = 0
    if recipe.form is Form.ONNX and not recipe.calibrated and {"unet", "unet_plain"} <= {*counts}:
        shared = stored["unet_plain"]  # all of it is the other's, too
    bundle = weights - shared + table + len(specs) * _GRAPH_BYTES + _GOLDEN_BYTES
    whole_model = _parameters(model) * _FP32_BYTES
    largest = max(counts.values())
    step = _COPIES_OF_LARGEST_STAGE * largest * _FP32_BYTES
    if recipe.form is Form.ENGINE:  # a process of its own, while this one holds the model
        step = max(step, _builder_bytes(largest, recipe.precision))
    peak = _BASE_BYTES + whole_model + table + step
    streamed = profile.llm.streamed and not recipe.calibrated  # the calibration runs all stages together
    if streamed:
        peak = _streamed_peak(profile, counts, recipe)
    parts = profile.llm.layers + 2 if profile.llm.streamed else 0
    seconds = _START_SECONDS + sum(
        _stage_seconds(count / 1e6, recipe, parts if name == "llm" else 0) for name, count in counts.items()
    )
    cache = 2 * d.layers * d.kv_heads * d.head_dim * d.context * _FP32_BYTES
    if streamed:
        lone = {name: count for name, count in counts.items() if name != "llm"}
        # the fp32 stages, and the language model twice more while its parts are put together
        kept = sum(lone.values()) * _FP32_BYTES + 2 * stored.get("llm", 0)
    elif recipe.calibrated:
        kept = sum(counts.values()) * _FP32_BYTES + weights + int(_CAPTURED_CACHES * cache)
    elif recipe.precision is not Precision.FP32 or recipe.form is Form.ENGINE:
        cache //= 1 if recipe.precision is Precision.FP32 else 2
        kept = sum(counts.values()) * _FP32_BYTES  # the fp32 stages, in the cache
    else:
        kept = 0
    return Estimate(counts, bundle, peak, seconds, on_device + cache + _RUNTIME_BYTES, kept)


def _streamed_peak(profile: Profile, counts: Mapping[str, int], recipe: Recipe) -> int:
    """Peak of memory of a build that holds one stage at a time; of the language model, its table and one block."""
    llm = profile.llm
    table = llm.vocabulary * llm.hidden * _FP32_BYTES
    steps = [
        _STREAMED_COPIES * count * _FP32_BYTES + _PIXEL_BYTES.get(name, 0) * profile.image_px**2
        for name, count in counts.items()
        if name != "llm"
    ]
    if "llm" in counts:
        part = _SEGMENT_COPIES * max(llm.block_parameters, llm.vocabulary * llm.hidden) * _FP32_BYTES
        # mapped files may leave memory again, so that more than 4-bit weights are not asked for
        mapped = _MAPPED_WEIGHTS * counts["llm"] * _MAPPED_BYTES
        steps.append(int(part + mapped))
    if recipe.form is Form.ENGINE:
        largest = max(counts.values())
        steps.append(_builder_bytes(largest, recipe.precision))
    return int(_BASE_BYTES + 2 * table + max(steps))


def engine_needs(profile: Profile, stage_names: Sequence[str], precision: Precision) -> dict[str, tuple[int, float]]:
    """For each stage, bytes of memory and seconds on two cores of the process that builds its engine.

    UnavailableError for an unknown stage.
    """
    model = without_weights(profile)
    found = {}
    for spec in choose_specs(profile.name, model.dimensions, stage_names):
        count = _parameters(model.stage(spec.name))
        streamed = profile.llm.streamed and spec.name == "llm"
        found[spec.name] = (_builder_bytes(count, precision), _engine_seconds(count / 1e6, streamed=streamed))
    return found


def _builder_bytes(parameters: int, precision: Precision) -> int:
    """Memory of the process that builds one engine."""
    return int(_BUILDER_BYTES + parameters * _BUILDER_BYTES_PER_WEIGHT[precision])


def _engine_seconds(millions: float, *, streamed: bool) -> float:
    each = _STREAMED_ENGINE_SECONDS_PER_MILLION if streamed else _ENGINE_SECONDS_PER_MILLION
    return _ENGINE_SECONDS + millions * each


def _stage_seconds(millions: float, recipe: Recipe, parts: int) -> float:
    """Seconds for one stage. `parts`: of a streamed language model, 0 for any other stage."""
    if not millions:
        return _WITHOUT_WEIGHTS_SECONDS
    lowered = recipe.precision is not Precision.FP32 or recipe.form is Form.ENGINE
    if parts:
        seconds = parts * _PART_SECONDS + millions * _STREAMED_SECONDS_PER_MILLION
    else:
        small, large = min(millions, _SMALL_MILLIONS), max(millions - _SMALL_MILLIONS, 0.0)
        seconds = _SECONDS_PER_STAGE + small * _SECONDS_PER_MILLION_PARAMETERS + large * _LARGE_SECONDS_PER_MILLION
        if lowered and not recipe.calibrated:
            seconds += _LOWER_SECONDS + small * _LOWER_SECONDS_PER_MILLION + large * _LARGE_LOWER_SECONDS_PER_MILLION
    if recipe.calibrated:
        return seconds + _CALIBRATION_SECONDS + millions * _CALIBRATION_SECONDS_PER_MILLION
    if recipe.form is Form.ENGINE:
        seconds += _engine_seconds(millions, streamed=bool(parts))
    return seconds


def _stored_bytes(module: torch.nn.Module, precision: Precision) -> int:
    """A stage's weights as they are written."""
    narrow = narrow_parameters(module) if precision is Precision.INT4 else 0
    return int(narrow * _NARROW_BYTES + (sum(t.numel() for t in held(module)) - narrow) * _WEIGHT_BYTES[precision])


def _parameters(module: torch.nn.Module) -> int:
    return sum(t.numel() for t in {id(t): t for t in [*module.parameters(), *module.buffers()]}.values())
