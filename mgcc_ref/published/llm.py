"""Published language models: OPT, Llama, Qwen 2 and Qwen 3, from folders in the hub's layout."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mgcc_ref.llm_config import LlmConfig, Rope, RopeScaling
from mgcc_ref.networks.llm import CausalLm, ImageTokens
from mgcc_ref.published.settings import read_settings, require_config, require_fields
from mgcc_ref.published.tensors import TRANSFORMERS, Tensors, open_tensors, require_fit
from mgcc_ref.weights import WeightsError

TABLES = ("embed_tokens.weight", "lm_head.weight")  # may have rows beyond the vocabulary, which no token uses
#: Fields that the profile chooses, not the weights.
_CHOSEN = ("feature_layers", "by_block", "vocabulary", "max_positions")

_LLAMA_HUB = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.out",
    "self_attn.q_norm": "attention.query_norm",
    "self_attn.k_norm": "attention.key_norm",
    "post_attention_layernorm": "mlp_norm",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down",
}
_OPT_HUB = {
    "self_attn_layer_norm": "attention_norm",
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.out_proj": "attention.out",
    "final_layer_norm": "mlp_norm",
    "fc1": "mlp.up",
    "fc2": "mlp.down",
}
_QUERY_KEY_VALUE = ("attention.query", "attention.key", "attention.value")
#: The only value of each of these `config.json` settings that is implemented here.
_BUILT: dict[str, dict[str, Any]] = {
    "opt": {
        "activation_function": "relu",
        "do_layer_norm_before": True,
        "_remove_final_layer_norm": False,
        "enable_bias": True,
        "layer_norm_elementwise_affine": True,
        "tie_word_embeddings": True,
    },
    "llama": {"hidden_act": "silu", "partial_rotary_factor": 1.0},
    "qwen2": {"hidden_act": "silu", "use_sliding_window": False},
    "qwen3": {"hidden_act": "silu", "use_sliding_window": False},
}


def our_name(key: str, family: str) -> str:
    """`CausalLm`'s name of a weight of a `transformers` OPT, Llama or Qwen; "" for a weight that it does not need."""
    names = _OPT_HUB if family == "opt" else _LLAMA_HUB
    key = key.removeprefix("model.").removeprefix("decoder.")
    if key.endswith("rotary_emb.inv_freq"):
        return ""  # computed here; old checkpoints hold it
    if key.startswith("layers."):
        _, block, rest = key.split(".", 2)
        part, _, kind = rest.rpartition(".")
        return f"blocks.{block}.{names.get(part, part)}.{kind}"
    if key in ("norm.weight", "final_layer_norm.weight", "final_layer_norm.bias"):
        return "final_norm." + key.rsplit(".", 1)[1]
    return key  # embed_tokens.weight, embed_positions.weight, lm_head.weight


def hub_state_to_ours(state: dict[str, Tensor], config: LlmConfig) -> dict[str, Tensor]:
    """Rename a `transformers` state dict to `CausalLm`'s names, without the projection of a tied model."""
    renamed = {name: tensor for key, tensor in state.items() if (name := our_name(key, config.family))}
    return {name: tensor for name, tensor in renamed.items() if name != "lm_head.weight" or not config.tied}


def open_llm_tensors(folder: Path, config: LlmConfig) -> Tensors:
    """A folder's tensors by our names. WeightsError names tensors or fields of `config.json` that differ from the
    profile."""
    check_llm(folder, config)
    pickled = config.source if config.source and not Path(config.source).exists() else folder  # of a hub id, all of it
    found = open_tensors(folder, TRANSFORMERS, partial(our_name, family=config.family), pickled)
    if config.tied:
        for held in (found.places, found.shapes):
            held.pop("lm_head.weight", None)  # a copy of the embeddings, or unused
    expected, shapes = expected_shapes(config), dict(found.shapes)
    for name in TABLES:
        if name in shapes and name in expected and shapes[name][0] >= expected[name][0]:
            shapes[name] = (expected[name][0], *shapes[name][1:])
    what = f"{config.family} of {config.layers} blocks of width {config.hidden}"
    require_fit(folder, shapes, expected, what)
    return found


def expected_shapes(config: LlmConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every published tensor of a `CausalLm`."""
    with torch.device("meta"):
        whole = CausalLm(config, ImageTokens(0, config.hidden)).state_dict()
    return {k: tuple(v.shape) for k, v in whole.items() if not k.startswith("image_tokens.")}


def check_llm(path: Path, config: LlmConfig) -> None:
    """WeightsError if a folder's `config.json` is of another model than the profile's."""
    require_llm(path, llm_config(path, read_settings(path)), config)


def require_llm(path: Path, found: LlmConfig, config: LlmConfig) -> None:
    """WeightsError if the weights' own config differs from the profile's."""
    require_config(path, found, config, "language model", _CHOSEN)
    few = [
        f"{name} {getattr(found, name)} where the profile has {getattr(config, name)}"
        for name in ("vocabulary", "max_positions")
        if getattr(found, name) < getattr(config, name)
    ]
    if few:
        raise WeightsError(
            f"the language model in {path} is too small for the profile: {'; '.join(few)}; give larger weights, "
            "or derive a profile from your folders with `python tools/derive_profile.py`"
        )


def llm_config(path: Path, settings: dict[str, Any]) -> LlmConfig:
    """The model's config from `settings`, the content of a `config.json`. WeightsError if it is not implemented here.

    `feature_layers` is GILL's choice, the last layer alone. `vocabulary` counts the table's rows.
    """
    kind = settings.get("model_type")
    if kind not in _BUILT:
        raise WeightsError(
            f"{path} is of a {kind!r}, expected one of {', '.join(_BUILT)}; give weights of one of these"
        )
    from transformers import AutoConfig

    try:
        parsed = AutoConfig.for_model(kind, **{k: v for k, v in settings.items() if k != "model_type"}).to_dict()
    except (TypeError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()
        raise WeightsError(
            f"{path} is not {kind}'s ({reason[0] if reason else type(error).__name__}); copy it again"
        ) from error
    require_fields(path, parsed, _BUILT[kind], kind)
    return _opt(path, parsed) if kind == "opt" else _llama(path, kind, parsed)


def _opt(path: Path, c: dict[str, Any]) -> LlmConfig:
    require_fields(path, c, {"word_embed_proj_dim": c["hidden_size"]}, "opt")
    return LlmConfig(
        "opt", c["hidden_size"], c["num_hidden_layers"], c["num_attention_heads"], c["num_attention_heads"],
        c["ffn_dim"], c["vocab_size"], c["max_position_embeddings"], (c["num_hidden_layers"],), source=str(path),
    )  # fmt: skip


def _llama(path: Path, kind: str, c: dict[str, Any]) -> LlmConfig:
    attention = kind == "qwen2" or c.get("attention_bias", False)
    biased = (*_QUERY_KEY_VALUE, *(() if kind == "qwen2" else ("attention.out",))) if attention else ()
    if c.get("mlp_bias", False):
        biased = (*biased, "mlp.gate", "mlp.up", "mlp.down")
    hidden, heads = c["hidden_size"], c["num_attention_heads"]
    width, rope = c.get("head_dim") or hidden // heads, c["rope_parameters"]
    return LlmConfig(
        "llama", hidden, c["num_hidden_layers"], heads, c["num_key_value_heads"], c["intermediate_size"],
        c["vocab_size"], c["max_position_embeddings"], (c["num_hidden_layers"],), source=str(path),
        norm_eps=c["rms_norm_eps"], rope_theta=float(rope["rope_theta"]), rope=_rope(path, rope),
        head_width=0 if width * heads == hidden else width, tied=c["tie_word_embeddings"],
        biased=biased, query_key_norm=kind == "qwen3",
    )  # fmt: skip


def _rope(path: Path, said: dict[str, Any]) -> Rope | None:
    kind = said.get("rope_type", "default")
    require_fields(path, said, {"partial_rotary_factor": 1.0}, "rotary embedding")
    if kind == "default":
        return None
    if kind not in {*RopeScaling}:
        raise WeightsError(
            f"{path} asks for rope_type {kind!r}, expected one of default, {', '.join(RopeScaling)}; "
            "give a model without it, or one whose context is stretched in one of these ways"
        )
    if kind == RopeScaling.LINEAR:
        return Rope(RopeScaling.LINEAR, float(said["factor"]))
    return Rope(
        RopeScaling.LLAMA3, float(said["factor"]), float(said["low_freq_factor"]), float(said["high_freq_factor"]),
        int(said["original_max_position_embeddings"]),
    )  # fmt: skip
