"""A language model block by block: the whole one's answers, from shards as from seeds, and clear refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from mgcc_ref.config import get_profile
from mgcc_ref.llm_config import LlmConfig
from mgcc_ref.llm_layers import LlmLayers, RandomLayers, ShardedLayers, StreamedLm, load_block, load_llm, whole_llm
from mgcc_ref.networks.llm import CausalLm, ImageTokens
from mgcc_ref.published.tensors import INDEX
from mgcc_ref.weights import WeightsError

OPT = replace(
    get_profile("tiny").llm,
    family="opt",
    hidden=64,
    heads=4,
    kv_heads=4,
    layers=3,
    feature_layers=(1, 3),
    vocabulary=90,
)
LLAMA = replace(get_profile("tiny").llm, layers=3, feature_layers=(3,), vocabulary=90)
PADDED = 96  # rows of the published table, as OPT's 50,272 for 50,266


@pytest.fixture(scope="module", params=[OPT, LLAMA], ids=["opt", "llama"])
def config(request: pytest.FixtureRequest) -> LlmConfig:
    return request.param


@pytest.fixture(scope="module")
def folder(config: LlmConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of `transformers` in shards and half precision, as the hub has them."""
    torch.manual_seed(4)
    shared = {
        "vocab_size": PADDED, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
        "max_position_embeddings": config.max_positions, "tie_word_embeddings": True,
        "rms_norm_eps": config.norm_eps,
    }  # fmt: skip
    if config.family == "opt":
        model = OPTForCausalLM(OPTConfig(**shared, ffn_dim=config.intermediate, word_embed_proj_dim=64))
    else:
        model = LlamaForCausalLM(
            LlamaConfig(**shared, intermediate_size=config.intermediate, num_key_value_heads=config.kv_heads)
        )
    out = tmp_path_factory.mktemp(config.family)
    model.half().save_pretrained(out, max_shard_size="100kB")
    assert len(list(out.glob("*.safetensors"))) > 2
    return out


def answers(llm: CausalLm) -> list[torch.Tensor]:
    """After five positions, of one more."""
    x = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(1))
    past = llm(x[:, :5], *llm.empty_cache())[2:]
    return list(llm(x[:, 5:], *past))


@pytest.mark.parametrize("kind", ["random", "shards"])
def test_streamed_is_whole(config: LlmConfig, folder: Path, kind: str) -> None:
    layers: LlmLayers = RandomLayers(config) if kind == "random" else ShardedLayers(folder, config)
    tokens = ImageTokens(8, 64)
    for ours, theirs in zip(
        answers(StreamedLm(config, tokens, layers)), answers(whole_llm(config, tokens, layers)), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_shards_are_what_the_plain_loader_reads(config: LlmConfig, folder: Path) -> None:
    tokens = ImageTokens(8, 64)
    plain = CausalLm(config, tokens).eval()
    load_llm(plain, folder)
    streamed = StreamedLm(config, tokens, ShardedLayers(folder, config))
    for ours, theirs in zip(answers(streamed), answers(plain), strict=True):
        assert torch.equal(ours, theirs)
    assert len(streamed.token_table()) == 90 + 8  # the padding's rows are no tokens
    assert streamed.token_table().dtype is torch.float32


def test_blocks_differ_and_repeat() -> None:
    layers = RandomLayers(OPT)
    first, again, second = (load_block(OPT, layers, i).mlp.up.weight for i in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, second)
    assert not torch.equal(first, load_block(OPT, RandomLayers(OPT, seed=1), 0).mlp.up.weight)


def test_a_fingerprint_is_of_the_content(folder: Path, config: LlmConfig, tmp_path: Path) -> None:
    changed = shutil.copytree(folder, tmp_path / "changed")
    file = next(f for f in sorted(changed.glob("*.safetensors")) if any("layers.1." in k for k in load_file(f)))
    state = load_file(file)
    name = next(k for k in state if "layers.1." in k)
    state[name].view(-1)[0] += 1.0
    save_file(state, file, metadata={"format": "pt"})
    before, after = ShardedLayers(folder, config), ShardedLayers(changed, config)
    assert [before.fingerprint(i) == after.fingerprint(i) for i in (None, 0, 1, 2)] == [True, True, False, True]


def test_missing_shards_are_named(folder: Path, config: LlmConfig, tmp_path: Path) -> None:
    lacking = shutil.copytree(folder, tmp_path / "lacking")
    gone = sorted(lacking.glob("*.safetensors"))[1]
    gone.unlink()
    with pytest.raises(WeightsError, match=rf"lacks 1 of \d+ shards that its index names \({gone.name}\); download"):
        ShardedLayers(lacking, config)


def test_a_weight_that_no_shard_holds_is_named(folder: Path, config: LlmConfig, tmp_path: Path) -> None:
    lacking = shutil.copytree(folder, tmp_path / "lacking")
    index = json.loads((lacking / INDEX).read_text())
    file = index["weight_map"][next(k for k in index["weight_map"] if "layers.2." in k)]
    state = load_file(lacking / file)
    del state[next(k for k in state if "layers.2." in k)]
    save_file(state, lacking / file, metadata={"format": "pt"})
    with pytest.raises(
        WeightsError, match=r"does not fit the \w+ of 3 blocks of width 64: it lacks blocks\.2\.\S+; give"
    ):
        ShardedLayers(lacking, config)


def test_another_size_and_a_broken_file_are_refused(folder: Path, config: LlmConfig, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"is not the profile's: intermediate 128 where the profile has 64; give"):
        ShardedLayers(folder, replace(config, intermediate=64))
    with pytest.raises(WeightsError, match=r"too small for the profile: vocabulary 96 where the profile has 97; give"):
        ShardedLayers(folder, replace(config, vocabulary=PADDED + 1))
    broken = shutil.copytree(folder, tmp_path / "broken")
    sorted(broken.glob("*.safetensors"))[0].write_bytes(b"no tensors")
    with pytest.raises(WeightsError, match=r"cannot be read as safetensors .*; copy it again"):
        ShardedLayers(broken, config)
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"")
    shutil.copy(folder / "config.json", tmp_path / "pickled")
    with pytest.raises(
        WeightsError, match=r"holds no \*.safetensors but pytorch_model.bin; pickled weights are not read"
    ):
        ShardedLayers(tmp_path / "pickled", config)


def test_pickled_weights_are_converted(folder: Path, config: LlmConfig, tmp_path: Path) -> None:
    """As OPT is published: two .bin files and an index of theirs."""
    from tools.convert_checkpoint import convert, main

    state = {k: v for f in sorted(folder.glob("*.safetensors")) for k, v in load_file(f).items()}
    names, pickled = sorted(state), tmp_path / "pickled"
    pickled.mkdir()
    for i, part in enumerate((names[::2], names[1::2]), 1):
        torch.save({k: state[k] for k in part}, pickled / f"pytorch_model-0000{i}-of-00002.bin")
    shutil.copy(folder / "config.json", pickled)
    convert(str(pickled), tmp_path / "llm")
    assert (tmp_path / "llm" / "config.json").is_file()
    ours, theirs = ShardedLayers(tmp_path / "llm", config), ShardedLayers(folder, config)
    assert [ours.fingerprint(i) for i in (None, 0, 1, 2)] == [theirs.fingerprint(i) for i in (None, 0, 1, 2)]
    assert main(["--source", str(pickled), "--out", str(tmp_path / "llm")]) == 2
    assert main(["--source", str(tmp_path / "llm"), "--out", str(tmp_path / "new")]) == 2
