"""What a build will need, from parameter counts alone: nothing is loaded or downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, models

from mgcc_export.stages import choose_specs
from mgcc_ref.config import Profile
from mgcc_ref.model import MgccModel, build_llm

_FP32_BYTES = 4
#: Measured on two cores: what a stage costs whatever its size, and what tracing, checking and comparing its
#: parameters cost on top.
_SECONDS_PER_STAGE = 7.0
_SECONDS_PER_MILLION_PARAMETERS = 0.6
_START_SECONDS = 15.0
#: The libraries; and the model, the traced stage, its serialised form and the session that checks it.
_BASE_BYTES = 900 * 2**20
_COPIES_OF_LARGEST_STAGE = 3
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


def estimate_build(profile: Profile, stage_names: Sequence[str] = ()) -> Estimate:
    """Disk, memory and time of exporting a profile in fp32; UnavailableError for an unknown stage."""
    model = _without_weights(profile)
    specs = choose_specs(profile.name, model.dimensions, stage_names)
    counts = {s.name: _parameters(model.stage(s.name)) for s in specs}
    d = model.dimensions
    table = d.vocabulary * d.hidden * _FP32_BYTES
    weights = sum(counts.values()) * _FP32_BYTES
    bundle = weights + table + len(specs) * _GRAPH_BYTES + _GOLDEN_BYTES
    whole_model = _parameters(model) * _FP32_BYTES
    peak = _BASE_BYTES + whole_model + table + _COPIES_OF_LARGEST_STAGE * max(counts.values()) * _FP32_BYTES
    seconds = _START_SECONDS + sum(
        _SECONDS_PER_STAGE + count / 1e6 * _SECONDS_PER_MILLION_PARAMETERS for count in counts.values()
    )
    cache = 2 * d.layers * d.kv_heads * d.head_dim * d.context * _FP32_BYTES
    return Estimate(counts, bundle, peak, seconds, weights + cache + _RUNTIME_BYTES)


def _without_weights(profile: Profile) -> MgccModel:
    """The profile's modules on the meta device: shapes without storage."""
    unused = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    with torch.device("meta"):
        return MgccModel(profile, build_llm(profile, filled=False), unused, unused)


def _parameters(module: torch.nn.Module) -> int:
    return sum(t.numel() for t in {id(t): t for t in [*module.parameters(), *module.buffers()]}.values())
