"""Stable Diffusion 1.x and GLIGEN from their original layout (`input_blocks.*`, `encoder.down.*`) to `diffusers`'.

`diffusers` translates the names. `config.json` follows from the tensors' shapes, except the number of heads. The
norms have 32 groups, as in the original code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from torch import Tensor

from mgcc_ref.published.pickles import plain
from mgcc_ref.published.tensors import misfits
from mgcc_ref.weights import WeightsError

UNET, VAE, AVERAGED = "model.diffusion_model.", "first_stage_model.", "model_ema."
SD_HEADS, SD_SCALING = 8, 0.18215
_GATES = "position_net."

State = dict[str, Tensor]


@dataclass(frozen=True)
class Original:
    """A checkpoint's UNet and autoencoder by original names without prefixes; either may be empty."""

    unet: State
    vae: State
    heads: int | None
    left_out: tuple[str, ...]  # first words of the names of other tensors


def take_apart(values: Mapping[str, Any]) -> Original:
    """Split a checkpoint's top level: `{"state_dict": ...}`, GLIGEN's parts, or tensors alone."""
    settings = plain(values.get("config_dict")) if "config_dict" in values else None
    if isinstance(values.get("model"), dict):  # GLIGEN's
        flat = {_prefixed(UNET, name): v for name, v in values["model"].items()}
        flat |= {_prefixed(VAE, name): v for name, v in dict(values.get("autoencoder") or {}).items()}
        others = [name for name in values if name not in ("model", "autoencoder", "config_dict")]
    else:
        state = values.get("state_dict")
        flat, others = dict(state if isinstance(state, dict) else values), []
        if any(name.startswith("input_blocks.") for name in flat):
            flat = {_prefixed(UNET, name): v for name, v in flat.items()}
    tensors = {name: v for name, v in flat.items() if isinstance(v, Tensor)}
    unet = {n.removeprefix(UNET): _averaged(n, tensors) for n in tensors if n.startswith(UNET)}
    vae = {n.removeprefix(VAE): v for n, v in tensors.items() if n.startswith(VAE) and not n.startswith(f"{VAE}loss.")}
    others += [name.partition(".")[0] for name in tensors if not name.startswith((UNET, VAE))]
    return Original(unet, vae, _heads(settings), tuple(dict.fromkeys(others)))


def _prefixed(prefix: str, name: str) -> str:
    return name if name.startswith(prefix) else prefix + name


def _averaged(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """The moving average of a weight, which draws better, if the checkpoint holds it."""
    return tensors.get(AVERAGED + "".join(name.split(".")[1:]), tensors[name])


def _heads(settings: Any) -> int | None:
    """`num_heads` of GLIGEN's own settings."""
    try:
        return int(settings.get("_content", settings)["model"]["params"]["num_heads"])
    except (TypeError, KeyError, ValueError, AttributeError):
        return None


def unet_to_diffusers(state: State, heads: int) -> tuple[dict[str, Any], State]:
    """(config.json, tensors) of a UNet; WeightsError names tensors that do not fit it."""
    config = unet_settings(state, heads)
    found = convert_ldm_unet_checkpoint({UNET + name: value for name, value in state.items()}, config)
    found |= {name: value for name, value in state.items() if name.startswith(_GATES)}
    return config, _checked(UNet2DConditionModel, config, state, found, "UNet")


def unet_settings(state: Mapping[str, Tensor], heads: int) -> dict[str, Any]:
    """`diffusers`' config of a UNet's original tensors."""
    levels: list[list[int]] = [[]]  # numbers of the residual blocks
    number = 1
    while any(name.startswith(f"input_blocks.{number}.") for name in state):
        if f"input_blocks.{number}.0.op.weight" in state:
            levels.append([])
        else:
            levels[-1].append(number)
        number += 1
    try:
        channels = [len(state[f"input_blocks.{level[-1]}.0.out_layers.3.weight"]) for level in levels]
        attends = [any(n.startswith(f"input_blocks.{level[0]}.1.") for n in state) for level in levels]
        crossed = next(v for n, v in state.items() if n.endswith("transformer_blocks.0.attn2.to_k.weight"))
        first, last = state["input_blocks.0.0.weight"], state["out.2.weight"]
    except (KeyError, IndexError, StopIteration) as error:
        raise WeightsError(
            f"the checkpoint's UNet is not of Stable Diffusion 1.x's form ({error!r}); "
            "give a checkpoint of SD 1.x or GLIGEN"
        ) from error
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": 64,
        "in_channels": first.shape[1],
        "out_channels": len(last),
        "block_out_channels": channels,
        "down_block_types": ["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        "layers_per_block": len(levels[0]),
        "cross_attention_dim": crossed.shape[1],
        "attention_head_dim": heads,
        "attention_type": "gated" if any(name.startswith(_GATES) for name in state) else "default",
    }


def vae_to_diffusers(state: State, scaling_factor: float = SD_SCALING) -> tuple[dict[str, Any], State]:
    """(config.json, tensors) of an autoencoder; WeightsError names tensors that do not fit it."""
    count = 0
    while f"encoder.down.{count}.block.0.conv2.weight" in state:
        count += 1
    try:
        channels = [len(state[f"encoder.down.{i}.block.0.conv2.weight"]) for i in range(count)]
        latent = len(state["post_quant_conv.weight"])
    except KeyError as error:
        raise WeightsError(
            f"the checkpoint's autoencoder lacks {error}; give a checkpoint of Stable Diffusion 1.x or GLIGEN"
        ) from error
    config = {
        "_class_name": "AutoencoderKL",
        "sample_size": 512,
        "latent_channels": latent,
        "block_out_channels": channels,
        "down_block_types": ["DownEncoderBlock2D"] * count,
        "up_block_types": ["UpDecoderBlock2D"] * count,
        "layers_per_block": sum(f"encoder.down.0.block.{i}.conv2.weight" in state for i in range(8)),
        "scaling_factor": scaling_factor,
    }
    found = convert_ldm_vae_checkpoint(dict(state), config)
    return config, _checked(AutoencoderKL, config, state, found, "autoencoder")


def _checked(build: Any, config: dict[str, Any], state: State, found: State, what: str) -> State:
    """`found`, if it fills the whole network and uses all of the checkpoint; else WeightsError."""
    with torch.device("meta"):
        expected = {name: tuple(v.shape) for name, v in build.from_config(config).state_dict().items()}
    taken = {value.data_ptr() for value in found.values()}
    shapes = {name: tuple(v.shape) for name, v in found.items()}
    shapes |= {name: tuple(v.shape) for name, v in state.items() if v.data_ptr() not in taken}
    if phrases := misfits(shapes, expected):
        raise WeightsError(
            f"the checkpoint's {what} is not of Stable Diffusion 1.x's form: it {', '.join(phrases)}; "
            "give a checkpoint of SD 1.x or GLIGEN"
        )
    return {name: value.contiguous() for name, value in found.items()}
