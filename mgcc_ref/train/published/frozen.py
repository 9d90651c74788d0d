"""The frozen language model on the device, in main memory or on disk, with gradient through it.

A block's activations are not kept; the backward pass computes them again. So a block that is not on the
device is copied there twice a pass, one block at a time.
"""

from __future__ import annotations

import enum
import logging
import os
from pathlib import Path

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mgcc_ref.llm_config import LlmConfig
from mgcc_ref.llm_layers import StreamedLm, load_block
from mgcc_ref.networks.llm import Block
from mgcc_ref.train.features import left_padding_mask, padded_positions
from mgcc_ref.train.loop import TrainingPrecision, attention_of

log = logging.getLogger("mgcc.train")

_DTYPES = {TrainingPrecision.FP32: torch.float32, TrainingPrecision.BF16: torch.bfloat16}
_MEMORY = Path("/proc/meminfo")
_DEVICE_SHARE, _HOST_SHARE = 0.6, 0.7  # shares of the free memory that the language model may take


class Placement(enum.StrEnum):
    """The place of the language model's blocks between their uses."""

    DEVICE = "device"
    HOST = "host"  # main memory
    DISK = "disk"  # read from their shards each time


def llm_bytes(config: LlmConfig, precision: TrainingPrecision) -> int:
    """Bytes of all blocks of a language model, without its tables."""
    return config.layers * config.block_parameters * _DTYPES[precision].itemsize


def choose_placement(needed_bytes: int, device: torch.device) -> Placement:
    """The fastest place with room for `needed_bytes`."""
    if needed_bytes <= _DEVICE_SHARE * free_bytes(device):
        return Placement.DEVICE
    return Placement.HOST if needed_bytes <= _HOST_SHARE * free_bytes(torch.device("cpu")) else Placement.DISK


def free_bytes(device: torch.device) -> int:
    """Free memory for a process: of its GPU, or its share of the system's."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return _available_bytes() // PartialState().num_processes


def _available_bytes() -> int:
    """Available memory, with the file cache that the system can free where it reports that."""
    if _MEMORY.is_file():
        for line in _MEMORY.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class FrozenLm:
    """A language model whose outputs have gradients and whose weights never change."""

    def __init__(
        self, llm: StreamedLm, precision: TrainingPrecision, device: torch.device, placement: Placement
    ) -> None:
        self.config, self.placement = llm.config, placement
        self._layers, self._precision, self._device = llm.layers, precision, device
        self._dtype = _DTYPES[precision]
        self._outer = llm
        for part in [llm.embed_tokens, llm.final_norm, *_optional(llm, "embed_positions", "lm_head")]:
            part.to(device, self._dtype)
        self._kept: list[Block] = []
        if placement is not Placement.DISK:
            there = device if placement is Placement.DEVICE else torch.device("cpu")
            self._kept = [self._read(i).to(there) for i in range(self.config.layers)]
        log.info("language model: %d blocks in %s, kept on: %s", self.config.layers, precision.value, placement)

    def _read(self, number: int) -> Block:
        return load_block(self.config, self._layers, number).to(self._dtype)

    def block(self, number: int) -> Block:
        """A block on the device."""
        block = self._kept[number] if self._kept else self._read(number)
        if self.placement is Placement.DEVICE:
            return block
        with torch.device("meta"):
            there = Block(self.config)
        state = {name: value.to(self._device, non_blocking=True) for name, value in block.state_dict().items()}
        there.load_state_dict(state, assign=True)
        return there.eval().requires_grad_(False)

    def embed(self, ids: Tensor) -> Tensor:
        """Word ids (...) -> embeddings (..., D) float32."""
        return self._outer.embed_tokens(ids).float()

    @property
    def table(self) -> Tensor:
        """Input embeddings of the words: (V, D)."""
        return self._outer.embed_tokens.weight

    def read(self, embeds: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Requests padded on the left: embeds (B, S, D) and mask (B, S) -> features (B, S, D_f), normed last (B, S, D).

        Both are float32, in whatever format the blocks compute.
        """
        length, device = embeds.shape[1], embeds.device
        positions = padded_positions(mask) if self.config.family == "opt" else torch.arange(length, device=device)
        with torch.autocast(device.type, enabled=False):
            x, attend, rotary = self._outer.enter(embeds.to(self._dtype), 0, left_padding_mask(mask, length), positions)
            turned = None if rotary is None else (rotary[0].to(self._dtype), rotary[1].to(self._dtype))
            layers = [x]
            for number in range(self.config.layers):
                x = checkpoint(self._run, number, x, attend, turned, use_reentrant=False)
                layers.append(x)
            layers[-1] = self._outer.final_norm(x)
            features = torch.cat([layers[i] for i in self.config.feature_layers], dim=-1)
        return features.float(), layers[-1].float()

    def _run(self, number: int, x: Tensor, attend: Tensor, rotary: tuple[Tensor, Tensor] | None) -> Tensor:
        shape = (x.shape[0], self.config.kv_heads, 0, self.config.head_dim)
        nothing = x.new_zeros(shape)
        with attention_of(self._precision):  # here, so that the recomputation uses it too
            after: Tensor = self.block(number)(x, (nothing, nothing), attend, rotary)[0]
        return after

    def word_logits(self, last: Tensor) -> Tensor:
        """Normed last layer (M, D) -> logits of the words (M, V) float32."""
        table = self.table if self.config.tied else self._outer.lm_head.weight
        with torch.autocast(last.device.type, enabled=False):
            return nn.functional.linear(last.to(self._dtype), table).float()


def _optional(llm: StreamedLm, *names: str) -> list[nn.Module]:
    return [getattr(llm, name) for name in names if hasattr(llm, name)]
