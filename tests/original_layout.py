"""Stable Diffusion's original names of a UNet and an autoencoder of `diffusers`, walked along its original code.

`openaimodel.UNetModel` numbers what it appends: `input_blocks` from the first convolution on, residual blocks and
downsamplers in one row; `output_blocks` from the deepest up. `AutoencoderKL`'s decoder counts its levels from the top.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor

State = dict[str, Tensor]

_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def original_unet(unet: UNet2DConditionModel) -> State:
    state, found = unet.state_dict(), State()

    def take(new: str, old: str, names: dict[str, str] | None = None) -> None:
        for key in [k for k in state if k.startswith(f"{new}.")]:
            rest = key.removeprefix(f"{new}.")
            for theirs, original in (names or {}).items():
                if rest.startswith(f"{theirs}."):
                    rest = original + rest.removeprefix(theirs)
            found[f"{old}.{rest}"] = state[key]

    for new, old in (("time_embedding.linear_1", "time_embed.0"), ("time_embedding.linear_2", "time_embed.2"),
                     ("conv_in", "input_blocks.0.0"), ("conv_norm_out", "out.0"), ("conv_out", "out.2"),
                     ("position_net", "position_net"), ("mid_block.attentions.0", "middle_block.1")):  # fmt: skip
        take(new, old)
    for i in (0, 1):
        take(f"mid_block.resnets.{i}", f"middle_block.{2 * i}", _RESNET)
    number = 1
    for level, block in enumerate(unet.down_blocks):
        for i in range(len(block.resnets)):
            take(f"down_blocks.{level}.resnets.{i}", f"input_blocks.{number}.0", _RESNET)
            take(f"down_blocks.{level}.attentions.{i}", f"input_blocks.{number}.1")
            number += 1
        if block.downsamplers is not None:
            take(f"down_blocks.{level}.downsamplers.0.conv", f"input_blocks.{number}.0.op")
            number += 1
    number = 0
    for level, block in enumerate(unet.up_blocks):
        attends = hasattr(block, "attentions")
        for i in range(len(block.resnets)):
            take(f"up_blocks.{level}.resnets.{i}", f"output_blocks.{number}.0", _RESNET)
            take(f"up_blocks.{level}.attentions.{i}", f"output_blocks.{number}.1")
            if i == len(block.resnets) - 1 and block.upsamplers is not None:
                place = 2 if attends else 1  # behind the attention, where there is one
                take(f"up_blocks.{level}.upsamplers.0.conv", f"output_blocks.{number}.{place}.conv")
            number += 1
    assert len(found) == len(state)
    return found


def original_vae(vae: AutoencoderKL) -> State:
    state, levels = vae.state_dict(), len(vae.config["block_out_channels"])
    found = {}
    for key, value in state.items():
        name = key
        for half in ("encoder", "decoder"):
            for i in range(levels):
                depth = i if half == "encoder" else levels - 1 - i
                way = "down" if half == "encoder" else "up"
                name = name.replace(f"{half}.{way}_blocks.{i}.resnets.", f"{half}.{way}.{depth}.block.")
                name = name.replace(f"{half}.{way}_blocks.{i}.{way}samplers.0.", f"{half}.{way}.{depth}.{way}sample.")
        name = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        if "mid_block.attentions.0." in name:
            for new, old in _VAE_ATTENTION.items():
                name = name.replace(f"mid_block.attentions.0.{new}.", f"mid.attn_1.{old}.")
            if value.ndim == 2:
                value = value[:, :, None, None]  # convolutions of one pixel there
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        found[name] = value
    assert len(found) == len(state)
    return found


def stable_diffusion(unet: UNet2DConditionModel, vae: AutoencoderKL) -> State:
    """As `v1-5-pruned.safetensors`: prefixes, a text encoder, the noise schedule."""
    return {
        **{f"model.diffusion_model.{name}": value for name, value in original_unet(unet).items()},
        **{f"first_stage_model.{name}": value for name, value in original_vae(vae).items()},
        "cond_stage_model.transformer.text_model.final_layer_norm.weight": torch.ones(4),
        "betas": torch.zeros(1000),
    }


def averages(state: State, shift: float) -> Iterator[tuple[str, Tensor]]:
    """The moving averages of `model_ema`, whose names have lost their dots."""
    for name, value in state.items():
        if name.startswith("model.diffusion_model."):
            yield "model_ema." + "".join(name.split(".")[1:]), value + shift
