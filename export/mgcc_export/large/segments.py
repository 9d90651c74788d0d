"""A language model cut where its residual stream passes from block to block: entry, blocks, exit.

Each segment is a stage of its own, with a spec, so that it is exported, scanned, lowered and compared by the same
code; between two of them pass `hidden.{i}` (1, S, D), what comes before block i, and what all blocks share: the mask
and, for Llama, the rotary tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mgcc_export.stages.stage import Stage
from mgcc_ref.llm_config import LlmConfig
from mgcc_ref.llm_layers import StreamedLm, load_block
from mgcc_ref.networks.llm import Block, CausalLm
from mgcc_runtime.contract import Axis, DType, StageSpec, TensorSpec, past_names, present_names


class EntrySegment(nn.Module):
    """(inputs_embeds, first key of the cache) -> hidden.0, mask (S, T) bool and, for Llama, cos and sin (S, d)."""

    def __init__(self, llm: CausalLm) -> None:
        super().__init__()
        self.llm = llm

    def forward(self, inputs_embeds: Tensor, first_key: Tensor) -> tuple[Tensor, ...]:
        x, mask, rotary = self.llm.enter(inputs_embeds, first_key.shape[2])
        return (x.clone() if x is inputs_embeds else x, mask, *(rotary or ()))


class BlockSegment(nn.Module):
    """(hidden.{i}, mask, [cos, sin], past key, past value) -> hidden.{i + 1}, key, value."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor, mask: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        *rotary, key, value = tensors
        return self.block(x, (key, value), mask, (rotary[0], rotary[1]) if rotary else None)


class ExitSegment(nn.Module):
    """The feature layers below the last, then the last hidden.{L} -> logits, hidden_states."""

    def __init__(self, llm: CausalLm, config: LlmConfig) -> None:
        super().__init__()
        self.llm, self.layers = llm, config.layers
        self.lower = lower_features(config)
        self.features = config.feature_layers

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        last = self.llm.final_norm(tensors[-1])
        found = {**dict(zip(self.lower, tensors, strict=False)), self.layers: last}
        return self.llm.logits(last), torch.cat([found[i] for i in self.features], dim=-1)


@dataclass(frozen=True)
class LlmSegments:
    """The segments of a language model, by number: 0 the entry, 1 to L its blocks, L + 1 the exit."""

    llm: StreamedLm
    spec: StageSpec  # of the whole stage
    axes: Mapping[str, Axis]

    def __len__(self) -> int:
        return self.llm.config.layers + 2

    def fingerprint(self, number: int) -> str:
        """Of the weights in the segment."""
        return self.llm.layers.fingerprint(number - 1 if 0 < number <= self.llm.config.layers else None)

    def stage(self, number: int) -> Stage:
        """The segment with its weights in memory."""
        return Stage(self.spec_of(number), self._module(number).eval(), self.axes)

    def spec_of(self, number: int) -> StageSpec:
        """What goes in and out, without loading anything."""
        config, tensors = self.llm.config, {t.name: t for t in (*self.spec.inputs, *self.spec.outputs)}
        shared = _shared(config)
        if number == 0:
            inputs = (tensors["inputs_embeds"], tensors[past_names(1)[0]])
            return StageSpec("llm.000", inputs, (_hidden(config, 0), *shared), "what the first block reads")
        if number == len(self) - 1:
            hidden = [_hidden(config, i) for i in (*lower_features(config), config.layers)]
            outputs = (tensors["logits"], tensors["hidden_states"])
            return StageSpec(f"llm.{number:03}", tuple(hidden), outputs, "logits and features")
        block = number - 1
        past = [tensors[n] for n in past_names(config.layers)[2 * block : 2 * block + 2]]
        present = [tensors[n] for n in present_names(config.layers)[2 * block : 2 * block + 2]]
        return StageSpec(
            f"llm.{number:03}",
            (_hidden(config, block), *shared, *past),
            (_hidden(config, block + 1), *present),
            f"block {block}",
        )

    def _module(self, number: int) -> nn.Module:
        if number == 0:
            return EntrySegment(self.llm)
        if number == len(self) - 1:
            return ExitSegment(self.llm, self.llm.config)
        return BlockSegment(load_block(self.llm.config, self.llm.layers, number - 1))


def lower_features(config: LlmConfig) -> tuple[int, ...]:
    """The feature layers below the last one, each once."""
    return tuple(sorted({i for i in config.feature_layers if i < config.layers}))


def _hidden(config: LlmConfig, number: int) -> TensorSpec:
    return TensorSpec(f"hidden.{number}", DType.FLOAT32, (1, "S", config.hidden), "the residual stream")


def _shared(config: LlmConfig) -> tuple[TensorSpec, ...]:
    mask = TensorSpec("mask", DType.BOOL, ("S", "T"), "true where a position may look")
    if config.family == "opt":
        return (mask,)
    return (mask, *(TensorSpec(n, DType.FLOAT32, ("S", config.head_dim), "rotary table") for n in ("cos", "sin")))
