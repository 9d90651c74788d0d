"""Published language models of every family, as `transformers` saves them: the same logits, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from mgcc_ref.config import get_profile
from mgcc_ref.llm_config import LlmConfig, Rope, RopeScaling
from mgcc_ref.llm_layers import ShardedLayers, StreamedLm, load_llm, whole_llm
from mgcc_ref.networks.llm import CausalLm, ImageTokens
from mgcc_ref.published.llm import llm_config
from mgcc_ref.published.settings import read_settings
from mgcc_ref.weights import WeightsError

TOLERANCE = 2e-5  # float32 over two layers
WORDS = 90
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16, "rope_theta": 500.0,
}  # fmt: skip
SIZES = {
    "vocab_size": WORDS, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "pad_token_id": 0,
}  # fmt: skip
Saved = tuple[PreTrainedModel, Path]

FAMILIES: dict[str, Callable[[], PreTrainedModel]] = {
    "opt": lambda: OPTForCausalLM(
        OPTConfig(
            vocab_size=96, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, ffn_dim=96,
            max_position_embeddings=128, word_embed_proj_dim=64, dropout=0.0,
        )
    ),
    "tinyllama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False)),
    "llama-3.1": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False, rope_parameters=LLAMA3)),
    "llama-3.2": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=True, rope_parameters=LLAMA3)),
    "linear": lambda: LlamaForCausalLM(
        LlamaConfig(**SIZES, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0})
    ),
    "wide heads": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, head_dim=24)),
    "biased": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=24, tie_word_embeddings=False)),
}  # fmt: skip


def noised(model: PreTrainedModel) -> PreTrainedModel:
    """With biases and norms that are not zeros and ones, so that one left out is seen."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    torch.manual_seed(3)
    model, folder = noised(FAMILIES[request.param]()), tmp_path_factory.mktemp("llm")
    model.save_pretrained(folder)
    return model, folder


def derived(folder: Path) -> LlmConfig:
    return llm_config(folder, read_settings(folder))


@torch.no_grad()
def compared(llm: CausalLm, theirs: PreTrainedModel) -> float:
    """The largest difference of the last position's logits, at a length where a stretched rotary embedding shows."""
    rows = llm.config.vocabulary
    ids = torch.randint(4, WORDS, (1, 40), generator=torch.Generator().manual_seed(0))
    logits, features, *_ = llm.eval()(llm.embed(ids), *llm.empty_cache())
    expected = theirs(ids, output_hidden_states=True)
    wrong = (logits[0, 0, :rows] - expected.logits[0, -1, :rows]).abs().max()
    return max(float(wrong), float((features - expected.hidden_states[-1]).abs().max()))


def test_derived_and_loaded_it_gives_the_logits_of_transformers(saved: Saved) -> None:
    theirs, folder = saved
    config, tokens = derived(folder), ImageTokens(8, 64)
    whole = CausalLm(config, tokens)
    load_llm(whole, folder)
    assert compared(whole, theirs) < TOLERANCE
    streamed = StreamedLm(config, tokens, ShardedLayers(folder, config))
    assert compared(streamed, theirs) < TOLERANCE


def test_what_was_ignored_before_is_seen_in_the_logits(tmp_path: Path) -> None:
    """The known mistakes: a tied head, no stretching, no norm of queries and keys, no biases."""
    for name, wrong in (
        ("tinyllama", {"tied": True}),
        ("llama-3.1", {"rope": None}),
        ("llama-3.1", {"rope_theta": 10_000.0}),
        ("linear", {"rope": Rope(RopeScaling.LINEAR, 2.0)}),
        ("qwen3", {"query_key_norm": False}),
        ("qwen2", {"biased": ()}),
    ):
        torch.manual_seed(3)
        theirs = noised(FAMILIES[name]())
        theirs.save_pretrained(tmp_path / name)
        config = derived(tmp_path / name)
        right = whole_llm(config, ImageTokens(8, 64), ShardedLayers(tmp_path / name, config))
        mistaken = CausalLm(replace(config, **wrong), ImageTokens(8, 64))
        mistaken.load_state_dict(right.state_dict(), strict=False)
        assert compared(mistaken, theirs) > 20 * TOLERANCE, name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tied": True}, "tied False where the profile has True"),
        ({"rope": None}, r"rope Rope\(.*LLAMA3.*\) where the profile has None"),
        ({"rope_theta": 10_000.0}, "rope_theta 500.0 where the profile has 10000.0"),
        ({"heads": 8, "kv_heads": 4}, "heads 4 where the profile has 8; kv_heads 2 where the profile has 4"),
        ({"head_width": 32}, "head_width 0 where the profile has 32"),
        ({"norm_eps": 1e-5}, "norm_eps 1e-06 where the profile has 1e-05"),
        ({"biased": ("attention.query",)}, "biased none where the profile has attention.query"),
        ({"layers": 1}, "layers 2 where the profile has 1"),
        ({"max_positions": 256}, "too small for the profile: max_positions 128 where the profile has 256"),
    ],
)
def test_a_profile_of_another_model_is_refused_by_field(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    FAMILIES["llama-3.1"]().save_pretrained(tmp_path)
    config = replace(derived(tmp_path), **change)
    with pytest.raises(WeightsError, match=said) as caught:
        ShardedLayers(tmp_path, config)
    assert "derive a profile from your folders" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("opt", {"word_embed_proj_dim": 32}, "word_embed_proj_dim 32, which this project's opt does not do"),  # 350m
        ("opt", {"do_layer_norm_before": False}, "do_layer_norm_before False"),
        ("opt", {"activation_function": "gelu"}, "activation_function gelu"),
        ("tinyllama", {"hidden_act": "gelu"}, "hidden_act gelu"),
        ("tinyllama", {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}, "rope_type 'yarn'"),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 8}, "use_sliding_window True"),
        ("tinyllama", {"model_type": "gemma"}, "is of a 'gemma', expected one of opt, llama, qwen2, qwen3"),
    ],
)
def test_what_is_not_built_is_refused_by_field(tmp_path: Path, name: str, change: dict[str, Any], said: str) -> None:
    FAMILIES[name]().save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | change))
    with pytest.raises(WeightsError, match=said):
        derived(tmp_path)


def test_older_settings_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    """As Llama 3.1's config.json is published: `rope_theta` and `rope_scaling` at the top."""
    FAMILIES["llama-3.1"]().save_pretrained(tmp_path)
    new = derived(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    rope = settings.pop("rope_parameters")
    settings |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert derived(tmp_path) == new and new.rope == Rope(RopeScaling.LLAMA3, 8.0, 1.0, 4.0, 16)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda s: s.pop("model.layers.1.self_attn.k_proj.bias"), r"it lacks blocks\.1\.attention\.key\.bias; give"),
        (
            lambda s: s.update({"model.layers.0.adapter.weight": torch.zeros(2)}),
            r"it holds blocks\.0\.adapter.* beside",
        ),
        (
            lambda s: s.update({"model.norm.weight": torch.zeros(3)}),
            r"it has final_norm\.weight \(3,\), not \(64,\); give",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, spoil: Callable[..., Any], said: str) -> None:
    FAMILIES["qwen2"]().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    spoil(state)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match=said):
        ShardedLayers(tmp_path, derived(tmp_path))


def test_the_fp16_variant_alone_is_read_and_other_copies_are_left(tmp_path: Path) -> None:
    model = FAMILIES["qwen2"]().half()
    model.save_pretrained(tmp_path, variant="fp16")
    config = derived(tmp_path)
    llm = CausalLm(config, ImageTokens(8, 64))
    load_llm(llm, tmp_path)
    assert torch.equal(llm.embed_tokens.weight, model.model.embed_tokens.weight.float())
    (tmp_path / "model.fp16.safetensors").rename(tmp_path / "model.safetensors")
    save_file({"other": torch.zeros(2)}, tmp_path / "consolidated.safetensors")  # as Llama 3's folders have it
    ShardedLayers(tmp_path, config)
    (tmp_path / "model.safetensors").rename(tmp_path / "one.safetensors")
    with pytest.raises(
        WeightsError, match=r"2 files of weights and no index \(consolidated.*\), expected model\.safet"
    ):
        ShardedLayers(tmp_path, config)


def test_another_library_or_no_settings_at_all(tmp_path: Path) -> None:
    GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="is of a 'gpt2', expected one of opt"):
        derived(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"lacks config\.json, which says how its tensors are to be used; copy it"):
        derived(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(WeightsError, match="holds no JSON object"):
        derived(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="is not valid JSON"):
        derived(tmp_path)


def test_the_papers_profiles_are_opt_as_it_is_published(tmp_path: Path) -> None:
    """The fields of facebook/opt-6.7b's config.json (arXiv 2205.01068, table 1), and the table's padding rows."""
    published = OPTConfig(
        vocab_size=50272, hidden_size=4096, num_hidden_layers=32, num_attention_heads=32, ffn_dim=16384,
        max_position_embeddings=2048, word_embed_proj_dim=4096,
    )  # fmt: skip
    published.save_pretrained(tmp_path)
    found, paper = derived(tmp_path), get_profile("paper").llm
    assert found.vocabulary == 50272 > paper.vocabulary
    assert replace(found, vocabulary=paper.vocabulary, source=paper.source) == paper
