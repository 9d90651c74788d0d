"""A language model that is never whole in memory: its weights come block by block, from shards or seeded noise.

OPT-6.7B in fp32 is 27 GB. `StreamedLm` is a `CausalLm` whose blocks are read while it runs, one at a time, so that
the reference's answers can be had on a small machine; the exporter takes the same blocks for its graphs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mgcc_ref.config import LlmConfig
from mgcc_ref.llm import Block, CausalLm, ImageTokens
from mgcc_ref.weights import WeightsError, find_llm, our_name

INDEX = "model.safetensors.index.json"
State = dict[str, Tensor]


class LlmLayers(Protocol):
    """Where a language model's weights come from: float32, by `CausalLm`'s names."""

    def outer(self) -> State:
        """What belongs to no block: embed_tokens, final_norm and, for OPT, embed_positions."""
        ...

    def block(self, number: int) -> State:
        """Weights of one block, named as `Block` names them."""
        ...

    def fingerprint(self, number: int | None) -> str:
        """Says what the weights of one block, or of `outer` (None), are: the same for the same content."""
        ...


class RandomLayers:
    """Seeded random weights, each block from a seed of its own: the exact architecture, for sizes and build tests."""

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
    """PyTorch's generator from this seed, put back as it was at the end."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __enter__(self) -> None:
        self._state = torch.random.get_rng_state()
        torch.manual_seed(self.seed)

    def __exit__(self, *error: object) -> None:
        torch.random.set_rng_state(self._state)


class ShardedLayers:
    """The shards of a folder of safetensors in the hub's layout, or its single file.

    Opening reads the headers alone. WeightsError if a shard or a weight is missing, or a shape is not the profile's.
    """

    def __init__(self, folder: Path, config: LlmConfig) -> None:
        self.folder, self.config = folder, config
        self._places: dict[str, tuple[Path, str]] = {}  # our name -> (file, its name there)
        shapes: dict[str, tuple[int, ...]] = {}
        for file in _shards(folder):
            try:
                with safe_open(file, "pt") as shard:
                    for key in shard.keys():  # noqa: SIM118 - no mapping
                        if name := our_name(key, config.family):
                            self._places[name] = file, key
                            shapes[name] = tuple(shard.get_slice(key).get_shape())
            except (SafetensorError, OSError) as error:
                raise WeightsError(f"{file} cannot be read as safetensors ({error}); copy it again") from error
        self._check(shapes)

    def outer(self) -> State:
        state = {name: tensor.float() for name, tensor in self._read(None).items()}
        table = state["embed_tokens.weight"]
        state["embed_tokens.weight"] = table[: self.config.vocabulary].contiguous()  # the rest is padding
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
        """Tensors of one block, or of none, as they are stored."""
        state: State = {}
        prefix = "" if number is None else f"blocks.{number}."
        names = [n for n in self._places if n.startswith(prefix) and (prefix or not n.startswith("blocks."))]
        for file in dict.fromkeys(self._places[n][0] for n in names):
            with safe_open(file, "pt") as shard:
                for name in names:
                    if self._places[name][0] == file:
                        state[name] = shard.get_tensor(self._places[name][1])
        return state

    def _check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        with torch.device("meta"):
            whole = CausalLm(self.config, ImageTokens(0, self.config.hidden)).state_dict()
        expected = {k: tuple(v.shape) for k, v in whole.items() if not k.startswith("image_tokens.")}
        table = "embed_tokens.weight"
        wrong = sorted(expected.keys() ^ shapes.keys())
        wrong += [k for k in expected.keys() & shapes.keys() if k != table and expected[k] != shapes[k]]
        if not wrong and (shapes[table][0] < expected[table][0] or shapes[table][1:] != expected[table][1:]):
            wrong = [table]
        if wrong:
            raise WeightsError(
                f"{self.folder} does not fit the {self.config.family} of {self.config.layers} blocks of width "
                f"{self.config.hidden}: {', '.join(wrong[:4])}; give the folder of {self.config.source or 'that model'}"
            )


def _shards(folder: Path) -> list[Path]:
    """The safetensors of a folder, all of them there; WeightsError otherwise."""
    if (folder / INDEX).is_file():
        try:
            named = json.loads((folder / INDEX).read_bytes())["weight_map"]  # of bytes: with a byte-order mark, too
            files = sorted({folder / str(file) for file in named.values()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise WeightsError(f"{folder / INDEX} is no index of shards ({error!r}); copy it again") from error
        if missing := [f.name for f in files if not f.is_file()]:
            raise WeightsError(
                f"{folder} lacks {len(missing)} of {len(files)} shards that its index names "
                f"({', '.join(missing[:4])}); download them too"
            )
        return files
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise WeightsError(
            f"{folder} holds no *.safetensors; pickled weights are not read, "
            f"convert them with `python tools/convert_llm.py --source {folder} --out DIR`"
        )
    return files


def open_layers(config: LlmConfig) -> LlmLayers:
    """The layers of the profile's source (a local folder or a hub id), or random ones if it has none."""
    return ShardedLayers(find_llm(config.source), config) if config.source else RandomLayers(config)


class StreamedLm(CausalLm):
    """A `CausalLm` that reads each block when its turn comes and forgets it after; the rest is in memory."""

    def __init__(self, config: LlmConfig, image_tokens: ImageTokens, layers: LlmLayers) -> None:
        with torch.device("meta"):
            super().__init__(replace(config, layers=0), image_tokens)
        self.config, self.layers = config, layers
        del self.blocks
        self.blocks = _Blocks(config, layers)  # type: ignore[assignment]
        self.image_tokens = image_tokens
        self.load_state_dict(layers.outer(), strict=False, assign=True)
        self.eval().requires_grad_(False)


class _Blocks:
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
    """The same model in memory as a whole."""
    with torch.device("meta"):
        llm = CausalLm(config, image_tokens)
    llm.image_tokens = image_tokens
    state = layers.outer()
    for i in range(config.layers):
        state |= {f"blocks.{i}.{name}": tensor for name, tensor in layers.block(i).items()}
    llm.load_state_dict(state, strict=False, assign=True)
    return llm.eval().requires_grad_(False)
