"""Published CLIP: both towers and the tokenizer of a folder in `transformers`' layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CLIPConfig

from mgcc_ref.config import ClipConfig
from mgcc_ref.networks.clip import clip_settings
from mgcc_ref.published.settings import read_settings, require_config, require_fields
from mgcc_ref.published.tensors import TRANSFORMERS, fill, open_tensors
from mgcc_ref.weights import WeightsError

PREPROCESSOR = "preprocessor_config.json"
_LEGACY_END = 2  # the id in OpenAI's config.json; `transformers` then takes the highest id, which is the real one
#: Fields of each tower that affect its results.
_FIELDS = (
    "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "layer_norm_eps",
    "vocab_size", "max_position_embeddings", "image_size", "patch_size", "num_channels",
)  # fmt: skip


def load_clip(module: nn.Module, config: ClipConfig, folder: Path) -> None:
    """Fill a CLIP of the profile. WeightsError names settings or tensors that differ from the profile's."""
    ignored = () if (folder / PREPROCESSOR).is_file() else ("pixel_mean", "pixel_std")
    require_config(folder, clip_config(folder), replace(config, stem_channels=()), "CLIP", ignored)
    tensors = open_tensors(folder, TRANSFORMERS, _kept, folder)
    fill(module, tensors, "CLIP of its config.json")
    _fill_positions(module)


def _kept(key: str) -> str:
    return "" if key.endswith("position_ids") else key  # not learned; older files hold them


def _fill_positions(module: nn.Module) -> None:
    """Fill the position ids: most files lack them."""
    for inner in module.modules():
        ids = inner._buffers.get("position_ids")
        if ids is not None and ids.is_meta:
            inner._buffers["position_ids"] = torch.arange(ids.shape[-1]).expand(ids.shape)


def clip_config(folder: Path) -> ClipConfig:
    """The config in a folder's `config.json`. WeightsError for settings that this project does not implement."""
    settings = read_settings(folder)
    kind = settings.get("model_type")
    if kind in ("clip_vision_model", "clip_text_model") or (kind == "clip" and "text_config" not in settings):
        raise WeightsError(
            f"{folder} is of one of CLIP's towers alone ({kind}), and both are needed: the text tower encodes what is "
            "drawn; give the whole model, as openai/clip-vit-large-patch14 is"
        )
    if kind != "clip":
        raise WeightsError(f"{folder} is of a {kind!r}, expected a clip; give a CLIP of OpenAI's form")
    try:
        said = CLIPConfig.from_dict(dict(settings)).to_dict()
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(f"the config.json of {folder} is not CLIP's ({error}); copy it again") from error
    found = _found(folder, said)
    built = clip_settings(found).to_dict()
    for tower in ("text_config", "vision_config"):
        wanted = {name: built[tower][name] for name in _FIELDS if name in built[tower]}
        require_fields(folder, said[tower], wanted, f"CLIP ({tower})")
    return found


def _found(folder: Path, said: dict[str, Any]) -> ClipConfig:
    text, vision = said["text_config"], said["vision_config"]
    end = text["eos_token_id"]
    mean, std = _pixels(folder)
    return ClipConfig(
        vision["image_size"], vision["patch_size"], vision["hidden_size"], vision["num_hidden_layers"],
        vision["num_attention_heads"], text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"],
        text["vocab_size"], text["max_position_embeddings"], said["projection_dim"],
        eos_token_id=text["vocab_size"] - 1 if end == _LEGACY_END else end, source=str(folder),
        activation=text["hidden_act"], pixel_mean=mean, pixel_std=std,
    )  # fmt: skip


#: OpenAI's values, for a folder without `preprocessor_config.json`.
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_Three = tuple[float, float, float]


def _pixels(folder: Path) -> tuple[_Three, _Three]:
    if not (folder / PREPROCESSOR).is_file():
        return _MEAN, _STD
    said = read_settings(folder, PREPROCESSOR)
    mean, std = (tuple(said.get(name, usual)) for name, usual in (("image_mean", _MEAN), ("image_std", _STD)))
    if len(mean) != 3 or len(std) != 3:
        raise WeightsError(f"{folder / PREPROCESSOR} has {len(mean)} means, expected 3; copy it again")
    return mean, std
