"""Our language model against `transformers`, with the same weights: both families, cache, greedy decoding."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from mgcc_ref.config import get_profile
from mgcc_ref.llm_config import LlmConfig
from mgcc_ref.networks.llm import CausalLm, ImageTokens
from mgcc_ref.published.llm import hub_state_to_ours

TINY = get_profile("tiny").llm
OPT = replace(TINY, family="opt", kv_heads=TINY.heads)
TOLERANCE = 2e-5  # float32 over two layers; another order of sums is all that may differ


def theirs(config: LlmConfig) -> torch.nn.Module:
    torch.manual_seed(3)
    shared = {
        "vocab_size": config.vocabulary,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "max_position_embeddings": config.max_positions,
        "pad_token_id": 0,
    }
    if config.family == "opt":
        return OPTForCausalLM(
            OPTConfig(ffn_dim=config.intermediate, word_embed_proj_dim=config.hidden, dropout=0.0, **shared)
        ).eval()
    return LlamaForCausalLM(
        LlamaConfig(
            intermediate_size=config.intermediate,
            num_key_value_heads=config.kv_heads,
            rms_norm_eps=config.norm_eps,
            rope_theta=config.rope_theta,
            tie_word_embeddings=True,
            **shared,
        )
    ).eval()


def ours(config: LlmConfig, model: torch.nn.Module) -> CausalLm:
    llm = CausalLm(config, ImageTokens(8, config.hidden)).eval()
    missing, unexpected = llm.load_state_dict(hub_state_to_ours(model.state_dict(), config), strict=False)
    assert not unexpected
    assert all(name.startswith("image_tokens.") for name in missing)
    return llm


@pytest.mark.parametrize("config", [TINY, OPT], ids=["llama", "opt"])
@torch.no_grad()
def test_one_pass_gives_the_same_logits_and_hidden_states(config: LlmConfig) -> None:
    reference = theirs(config)
    llm = ours(config, reference)
    ids = torch.randint(4, config.vocabulary, (1, 13), generator=torch.Generator().manual_seed(0))
    expected = reference(ids, output_hidden_states=True)
    logits, features, *present = llm(llm.embed_tokens(ids), *llm.empty_cache())
    assert logits.shape == (1, 1, config.vocabulary + 8)
    assert present[0].shape == (1, config.kv_heads, 13, config.head_dim)
    torch.testing.assert_close(
        logits[0, 0, : config.vocabulary], expected.logits[0, -1], atol=TOLERANCE, rtol=TOLERANCE
    )
    wanted = torch.cat([expected.hidden_states[i] for i in config.feature_layers], dim=-1)
    torch.testing.assert_close(features, wanted, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize("config", [TINY, OPT], ids=["llama", "opt"])
@torch.no_grad()
def test_greedy_decoding_with_the_cache_writes_the_tokens_of_generate(config: LlmConfig) -> None:
    reference = theirs(config)
    llm = ours(config, reference)
    ids = torch.randint(4, config.vocabulary, (1, 9), generator=torch.Generator().manual_seed(1))
    expected = reference.generate(ids, max_new_tokens=16, do_sample=False, eos_token_id=None)[0, 9:].tolist()
    out = llm(llm.embed_tokens(ids), *llm.empty_cache())
    written = []
    for _ in range(16):
        token = int(out[0][0, 0, : config.vocabulary].argmax())
        written.append(token)
        out = llm(llm.embed_tokens(torch.tensor([[token]])), *out[2:])
    assert written == expected


@torch.no_grad()
def test_a_cache_split_anywhere_changes_nothing_and_positions_matter() -> None:
    llm = ours(TINY, theirs(TINY))
    embeds = llm.embed_tokens(torch.arange(5, 17).unsqueeze(0))
    whole = llm(embeds, *llm.empty_cache())
    for split in (1, 6, 11):
        first = llm(embeds[:, :split], *llm.empty_cache())
        second = llm(embeds[:, split:], *first[2:])
        torch.testing.assert_close(second[0], whole[0], atol=TOLERANCE, rtol=TOLERANCE)
        torch.testing.assert_close(second[-1], whole[-1], atol=TOLERANCE, rtol=TOLERANCE)
    forgetful = llm(embeds[:, 6:], *llm.empty_cache())  # the known mistake: the past is dropped
    assert (forgetful[0] - whole[0]).abs().max() > 100 * TOLERANCE


def test_an_unknown_family_is_named() -> None:
    with pytest.raises(ValueError, match="unknown language model family 'gpt9'"):
        CausalLm(replace(TINY, family="gpt9"), ImageTokens(8, TINY.hidden))
