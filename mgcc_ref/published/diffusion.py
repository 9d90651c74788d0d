"""Published UNets and autoencoders of Stable Diffusion 1.x and GLIGEN, in `diffusers`' layout."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn

from mgcc_ref.config import Grounding, UNetConfig, VaeConfig
from mgcc_ref.networks.unet import build_unet
from mgcc_ref.networks.vae import build_autoencoder
from mgcc_ref.published.settings import read_settings, require_config, require_fields
from mgcc_ref.published.tensors import CONVERT, DIFFUSERS, Tensors, fill, open_tensors
from mgcc_ref.weights import WeightsError

#: Names of Stable Diffusion's original layout; see `original.py`.
_ORIGINAL = ("model.diffusion_model.", "input_blocks.", "first_stage_model.")
_CROSS_ATTENTION = "CrossAttnDownBlock2D"
_ATTENTION_TYPES = ("gated", "default")
_SD_LATENT_PX = 64
#: Fields that the profile chooses, not the weights.
_CHOSEN_UNET = ("prediction", "gate_fraction", "painter", "latent_px")
#: Names of the mid block's attention in `diffusers` before 0.12; SD 1.4 and 1.5 are published with them.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


@dataclass(frozen=True)
class PublishedUNet:
    """The content of a folder's `config.json`. `config.grounding` is GLIGEN even for a plain UNet without gates."""

    config: UNetConfig
    conditioning: int
    gated: bool


def load_unet(module: nn.Module, config: UNetConfig, conditioning: int, folder: Path) -> None:
    """Fill the profile's bare UNet. WeightsError names settings or tensors that differ from the profile's."""
    found = unet_config(folder)
    if not found.gated:
        raise WeightsError(
            f"the UNet in {folder} is a plain one (attention_type 'default'), and the profile places objects by "
            "GLIGEN's gates, which it does not have; give a UNet that was trained with them, such as GLIGEN's own"
        )
    require_config(folder, found.config, config, "UNet", _CHOSEN_UNET)
    if found.conditioning != conditioning:
        raise WeightsError(
            f"the UNet in {folder} is conditioned on {found.conditioning} values a token, and the profile's CLIP gives "
            f"{conditioning}; give the CLIP that the UNet was trained with"
        )
    fill(module, _open(folder, str), "UNet of its config.json")


def load_vae(module: nn.Module, config: VaeConfig, latent_channels: int, folder: Path) -> None:
    """Fill the profile's autoencoder. WeightsError names settings or tensors that differ from the profile's."""
    found, channels = vae_config(folder)
    require_config(folder, found, config, "autoencoder")
    if channels != latent_channels:
        raise WeightsError(
            f"the autoencoder in {folder} has {channels} latent channels, and the profile's UNet {latent_channels}; "
            "give the one that the UNet was trained with"
        )
    fill(module, _open(folder, _new_attention), "autoencoder of its config.json")


def _new_attention(key: str) -> str:
    """The current name of a weight of the mid block's attention."""
    head, _, kind = key.rpartition(".")
    front, _, last = head.rpartition(".")
    return f"{front}.{_OLD_ATTENTION[last]}.{kind}" if ".attentions." in key and last in _OLD_ATTENTION else key


def _open(folder: Path, rename: Callable[[str], str]) -> Tensors:
    found = open_tensors(folder, DIFFUSERS, rename, folder)
    if any(name.startswith(_ORIGINAL) for name in found.places):
        raise WeightsError(
            f"{folder} holds the original layout of Stable Diffusion under diffusers' file name; convert it with "
            f"`{CONVERT.format(next(iter(found.places.values()))[0])}`"
        )
    return found


def unet_config(folder: Path) -> PublishedUNet:
    """The UNet in a folder's `config.json`. WeightsError if it is not of Stable Diffusion 1.x's form.

    `prediction` is "epsilon", as usual for these; the scheduler's settings name any other.
    """
    settings = read_settings(folder)
    _require_class(folder, settings, UNet2DConditionModel)
    said = _with_defaults(settings, UNet2DConditionModel)
    kind, heads = said["attention_type"], said["attention_head_dim"]
    if kind not in _ATTENTION_TYPES or not isinstance(heads, int):
        raise WeightsError(
            f"the UNet in {folder} has attention_type {kind!r} and attention_head_dim {heads}, expected one of "
            f"{', '.join(_ATTENTION_TYPES)} and one number; give a UNet of Stable Diffusion 1.x or GLIGEN"
        )
    found = UNetConfig(
        Grounding.GLIGEN, said["in_channels"], said["sample_size"] or _SD_LATENT_PX, tuple(said["block_out_channels"]),
        tuple(name == _CROSS_ATTENTION for name in said["down_block_types"]), said["layers_per_block"], heads,
        said["norm_num_groups"], "epsilon", source=str(folder),
    )  # fmt: skip
    with torch.device("meta"):
        built = dict(build_unet(found, said["cross_attention_dim"]).config)
    ignored = ("sample_size", "attention_type")
    wanted = {name: value for name, value in built.items() if not name.startswith("_") and name not in ignored}
    require_fields(folder, said, wanted, "UNet")
    return PublishedUNet(found, said["cross_attention_dim"], gated=kind == "gated")


def vae_config(folder: Path) -> tuple[VaeConfig, int]:
    """(the config in an autoencoder's `config.json`, its latent channels)."""
    settings = read_settings(folder)
    _require_class(folder, settings, AutoencoderKL)
    said = _with_defaults(settings, AutoencoderKL)
    found = VaeConfig(tuple(said["block_out_channels"]), kl=True, scaling_factor=said["scaling_factor"],
                      source=str(folder))  # fmt: skip
    with torch.device("meta"):
        built: Any = build_autoencoder(found, said["latent_channels"])
    ignored = ("sample_size", "force_upcast")  # of its use in fp16 elsewhere
    wanted = {k: v for k, v in dict(built.config).items() if not k.startswith("_") and k not in ignored}
    require_fields(folder, said, wanted, "autoencoder")
    return found, said["latent_channels"]


def _require_class(folder: Path, settings: dict[str, Any], build: type) -> None:
    if (name := settings.get("_class_name", build.__name__)) != build.__name__:
        raise WeightsError(
            f"{folder} is of a {name}, expected a {build.__name__}; give Stable Diffusion 1.x's or GLIGEN's"
        )


def _with_defaults(settings: dict[str, Any], build: Any) -> dict[str, Any]:
    """A `config.json` completed with the defaults of `diffusers`."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(build.__init__).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    return {**defaults, **{name: value for name, value in settings.items() if not name.startswith("_")}}
