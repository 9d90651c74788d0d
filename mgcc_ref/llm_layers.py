"""A language model that is never whole in memory: its weights come block by block, from shards or seeded noise.

OPT-6.7B in fp32 is 27 GB. `StreamedLm` is a `CausalLm` that reads its blocks one at a time while it runs, so that
the reference runs on a small machine. The exporter makes its graphs from the same blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from mgcc_ref.llm_config import LlmConfig
from mgcc_ref.networks.llm import Block, CausalLm, ImageTokens
from mgcc_ref.published.hub import find_llm
from mgcc_ref.published.llm import TABLES, open_llm_tensors

State = dict[str, Tensor]


class LlmLayers(Protocol):
    """Where a language model's weights come from: float32, by `CausalLm`'s names."""

    def outer(self) -> State:
        """Weights outside the blocks: embed_tokens, final_norm, OPT's embed_positions, and an untied lm_head."""
        ...

    def block(self, number: int) -> State:
        """Weights of one block, named as `Block` names them."""
        ...

    def fingerprint(self, number: int | None) -> str:
        """A text that identifies the weights of one block, or of `outer` (None): equal for equal content."""
        ...


class RandomLayers:
    """Seeded random weights, one seed for each block: the exact architecture, for sizes and build tests."""

    def __init__(self, config: LlmConfig, seed: int = 0) -> None:
        self.config, self.seed = config, seed

    def outer(self) -> State:
        with self._seeded(None):
            bare = CausalLm(replace(self.config, layers=0), ImageTokens(0, self.config.hidden))
        return {k: v for k, v in bare.state_dict().items() if not k.startswith("image_tokens.")}

    def block(self, number: int) -> State:
        with self._seeded(number):
            return dict(Block(self.config).state_dict())

    def fingerprint(self, number: int | None) -> str:
        return f"random {self.seed} {number}"

    def _seeded(self, number: int | None) -> _Seeded:
        return _Seeded(1_000_003 * self.seed + (0 if number is None else number + 1))


class _Seeded:
    """Seeds PyTorch's generator, and restores its state at the end."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self._state = torch.random.get_rng_state()
        torch.manual_seed(self.seed)

    def __exit__(self, *error: object) -> None:
        torch.random.set_rng_state(self._state)


class ShardedLayers:
    """The shards of a folder of safetensors in the hub's layout, or its single file.

    Opening reads the settings and the headers alone. WeightsError where they differ from the profile.
    """

    def __init__(self, folder: Path, config: LlmConfig) -> None:
        self.config = config
        self._tensors = open_llm_tensors(folder, config)

    def outer(self) -> State:
        state = {name: tensor.float() for name, tensor in self._read(None).items()}
        for name in TABLES:
            if name in state:
                state[name] = state[name][: self.config.vocabulary].contiguous()  # the rest is padding
        return state

    def block(self, number: int) -> State:
        return {name.split(".", 2)[2]: tensor.float() for name, tensor in self._read(number).items()}

    def fingerprint(self, number: int | None) -> str:
        digest = hashlib.sha256()
        for name, tensor in sorted(self._read(number).items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def _read(self, number: int | None) -> State:
        """Tensors of one block, or those outside the blocks (None), in the stored dtype."""
        prefix = "" if number is None else f"blocks.{number}."
        return self._tensors.read(
            name for name in self._tensors.places
            if name.startswith(prefix) and (prefix or not name.startswith("blocks."))
        )  # fmt: skip


def load_llm(llm: CausalLm, path: Path) -> None:
    """Fill a `CausalLm` from a GGUF file or a folder, without its [IMG] tokens. WeightsError if the weights differ."""
    if path.suffix == ".gguf":
        from mgcc_ref.published.gguf_file import load_gguf

        load_gguf(llm, path)
    else:
        llm.load_state_dict(whole_state(llm.config, ShardedLayers(path, llm.config)), strict=False, assign=True)


def open_layers(config: LlmConfig) -> LlmLayers:
    """The layers of the profile's source (a local folder or a hub id), or random ones if it has none."""
    return ShardedLayers(find_llm(config.source), config) if config.source else RandomLayers(config)


class StreamedLm(CausalLm):
    """A `CausalLm` that reads each block before its use and drops it after; the other weights stay in memory."""

    def __init__(self, config: LlmConfig, image_tokens: ImageTokens, layers: LlmLayers) -> None:
        with torch.device("meta"):
            super().__init__(replace(config, layers=0), image_tokens)
        self.config, self.layers = config, layers
        del self.blocks
        self.blocks = _StreamedBlocks(config, layers)
        self.image_tokens = image_tokens
        self.load_state_dict(layers.outer(), strict=False, assign=True)
        self.eval().requires_grad_(False)


class _StreamedBlocks:
    """The blocks in order, one in memory at a time."""

    def __init__(self, config: LlmConfig, layers: LlmLayers) -> None:
        self.config, self.layers = config, layers

    def __len__(self) -> int:
        return self.config.layers

    def __iter__(self) -> Iterator[nn.Module]:
        return (load_block(self.config, self.layers, i) for i in range(self.config.layers))


def load_block(config: LlmConfig, layers: LlmLayers, number: int) -> Block:
    """One block with its weights, in eval mode."""
    with torch.device("meta"):
        block = Block(config)
    block.load_state_dict(layers.block(number), assign=True)
    return block.eval().requires_grad_(False)


def whole_llm(config: LlmConfig, image_tokens: ImageTokens, layers: LlmLayers) -> CausalLm:
    """A `CausalLm` with all of its blocks in memory, in eval mode."""
    with torch.device("meta"):
        llm = CausalLm(config, image_tokens)
    llm.image_tokens = image_tokens
    llm.load_state_dict(whole_state(config, layers), strict=False, assign=True)
    return llm.eval().requires_grad_(False)


def whole_state(config: LlmConfig, layers: LlmLayers) -> State:
    """All weights of a language model, by `CausalLm`'s names."""
    state = layers.outer()
    for i in range(config.layers):
        state |= {f"blocks.{i}.{name}": tensor for name, tensor in layers.block(i).items()}
    return state
