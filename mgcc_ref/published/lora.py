"""LoRA files fused into a UNet and a CLIP: W + scale * alpha / rank * up @ down (arXiv 2106.09685).

It reads the two forms in use for Stable Diffusion 1.x: `lora_unet_down_blocks_0_..._to_q.lora_down.weight` with
`.alpha` (kohya's, LCM's, Hyper-SD's), and `unet.down_blocks.0....to_q.lora_A.weight` (diffusers' and PEFT's).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mgcc_ref.published.settings import listed
from mgcc_ref.weights import WeightsError, read_tensors

UNET, CLIP = PARTS = "unet", "clip"
#: The prefixes of a part's layers in either form.
_PREFIXES = {UNET: ("lora_unet_", "unet."), CLIP: ("lora_te_", "text_encoder.")}
_DOWN = (".lora_down.weight", ".lora_A.weight", ".lora.down.weight")
_UP = (".lora_up.weight", ".lora_B.weight", ".lora.up.weight")
_ALPHA = ".alpha"


@dataclass(frozen=True)
class Update:
    """The update of one layer, already scaled by its alpha."""

    down: Tensor  # (r, in) or (r, in, h, w)
    up: Tensor  # (out, r) or (out, r, 1, 1)
    scale: float

    def of(self, weight: Tensor) -> Tensor:
        """The update in the shape of `weight`; RuntimeError if it does not fit."""
        return self.scale * (self.up.flatten(1).float() @ self.down.flatten(1).float()).reshape(weight.shape)


def fuse_lora(module: nn.Module, part: str, path: Path, scale: float = 1.0) -> int:
    """Add a LoRA file to the weights of a UNet or CLIP; returns the number of changed layers.

    WeightsError names a layer that the module lacks, one of another shape, and tensors that are no LoRA.
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    names = {form: name for name in layers for form in (name, name.replace(".", "_"))}
    foreign: list[str] = []
    fused = 0
    for key, update in _updates(path, part):
        layer = layers.get(names.get(key, ""))
        if layer is None:
            foreign.append(key)
            continue
        try:
            with torch.no_grad():
                layer.weight.add_(update.of(layer.weight), alpha=scale)
        except RuntimeError as error:
            raise WeightsError(
                f"LoRA {path} has {key} as {tuple(update.up.shape)} x {tuple(update.down.shape)}, expected an update "
                f"of {tuple(layer.weight.shape)}; give one that was made for these weights"
            ) from error
        fused += 1
    if foreign:
        raise WeightsError(
            f"LoRA {path} changes {listed(foreign)}, which the profile's {part} does not have; "
            "give one that was made for Stable Diffusion 1.x"
        )
    return fused


def _updates(path: Path, part: str) -> Iterator[tuple[str, Update]]:
    """The layers of `part` that the file changes, by the file's names without their prefix."""
    state = read_tensors(path)
    known = tuple(prefix for prefixes in _PREFIXES.values() for prefix in prefixes)
    ends = (*_DOWN, *_UP, _ALPHA)
    if strange := [key for key in state if not (key.startswith(known) and key.endswith(ends))]:
        raise WeightsError(
            f"LoRA {path} holds {listed(sorted(strange))}, expected names such as "
            f"lora_unet_...{_DOWN[0]} or unet....{_DOWN[1]}; give a LoRA of Stable Diffusion 1.x"
        )
    for key in sorted(state):
        prefix = next((p for p in _PREFIXES[part] if key.startswith(p)), None)
        end = next((e for e in _DOWN if key.endswith(e)), None)
        if prefix is None or end is None:
            continue
        layer = key.removesuffix(end)
        up = state.get(layer + _UP[_DOWN.index(end)])
        if up is None:
            raise WeightsError(f"LoRA {path} has {key} and not its other half; copy it again")
        yield layer.removeprefix(prefix), Update(state[key], up, _relative_scale(state, layer, len(state[key])))


def _relative_scale(state: Mapping[str, Tensor], layer: str, rank: int) -> float:
    """alpha / rank; 1 for a file without alpha, as `diffusers` saves them."""
    alpha = state.get(layer + _ALPHA)
    return 1.0 if alpha is None else float(alpha) / rank
