"""A model part by part: the same weights as the whole one, published parts from the user's folders, nothing kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import OPTConfig, OPTForCausalLM

from mgcc_ref.config import Profile, get_profile
from mgcc_ref.model import Alignment, load_model, local_sources
from mgcc_ref.parts import STAGE_PARTS, PartedModel, load_parts
from mgcc_ref.weights import WeightsError, save_module
from mgcc_runtime.contract import stages


def on_meta(module: nn.Module) -> set[bool]:
    return {t.is_meta for t in (*module.parameters(), *module.buffers())}


@pytest.fixture(scope="module")
def opt_profile() -> Profile:
    """The paper's parts, small; hub names that nothing here can reach."""
    small = get_profile("paper-tiny")
    return replace(
        small, name="paper-like",
        llm=replace(small.llm, source="hub/opt"),
        clip=replace(small.clip, source="hub/clip"),
        unet=replace(small.unet, source="hub/gligen"),
        vae=replace(small.vae, source="hub/gligen"),
    )  # fmt: skip


@pytest.fixture
def folder(opt_profile: Profile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A weights folder with all that the profile needs: ours, and llm, clip, unet and vae in the hub's layout."""
    random = load_parts(opt_profile, "random", seed=3)
    model = random.model
    random.hold(list(STAGE_PARTS))
    model.clip.save_pretrained(tmp_path / "clip")
    model.unet.unet.save_pretrained(tmp_path / "unet")
    model.autoencoder.save_pretrained(tmp_path / "vae")
    save_module(Alignment(model), tmp_path / "alignment.safetensors")
    save_module(model.grounder, tmp_path / "grounder.safetensors")
    llm = opt_profile.llm
    shape = OPTConfig(
        vocab_size=llm.vocabulary, hidden_size=llm.hidden, num_hidden_layers=llm.layers, ffn_dim=llm.intermediate,
        num_attention_heads=llm.heads, max_position_embeddings=llm.max_positions, word_embed_proj_dim=llm.hidden,
    )  # fmt: skip
    torch.manual_seed(5)
    OPTForCausalLM(shape).save_pretrained(tmp_path / "llm")
    model.tokenizer.save(str(tmp_path / "llm" / "tokenizer.json"))
    # CLIP's own tokenizer is no part of this test
    monkeypatch.setattr("mgcc_ref.published.tokenizer_files.load_clip_tokenizer", lambda *_: model.text_tokenizer)
    return tmp_path


def test_parts_are_those_of_the_whole_model(opt_profile: Profile, folder: Path) -> None:
    whole, parts = load_model(opt_profile, folder), load_parts(opt_profile, folder)
    for spec in stages(whole.dimensions):
        if spec.name == "llm":
            continue
        parts.hold([spec.name])
        theirs = whole.stage(spec.name).state_dict()
        for name, value in parts.model.stage(spec.name).state_dict().items():
            assert torch.equal(value, theirs[name]), (spec.name, name)
    parts.release()
    embeds = whole.embed_tokens[torch.tensor([[5, 400, 515]])]  # the last one is an [IMG] token
    assert torch.equal(parts.model.embed_tokens, whole.embed_tokens)
    streamed, one_piece = parts.model.llm, whole.llm
    for ours, wanted in zip(
        streamed(embeds, *streamed.empty_cache()), one_piece(embeds, *one_piece.empty_cache()), strict=True
    ):
        assert torch.equal(ours, wanted)


def test_only_what_a_stage_needs_is_held(opt_profile: Profile) -> None:
    parts = load_parts(opt_profile, "random")
    model = parts.model
    kept = {"clip": model.clip, "unet": model.unet, "vae": model.autoencoder, "refiner": model.refiner}

    def held() -> set[str]:
        return {name for name, module in kept.items() if on_meta(module) == {False}}

    assert held() == set()
    for stage, wanted in (("unet", {"unet"}), ("phrase_encoder", {"clip"}), ("refiner", {"refiner"})):
        parts.hold([stage])
        assert held() == wanted
        assert on_meta(model.stage(stage)) == {False}
    parts.release()
    assert held() == set()


def test_random_parts_depend_on_the_seed_alone(opt_profile: Profile) -> None:
    def weight(parts: PartedModel, *before: str) -> torch.Tensor:
        for stage in (*before, "refiner"):
            parts.hold([stage])
        blocks = parts.model.refiner.blocks  # norms begin as ones, the distance from the end as zeros
        return next(p for p in blocks.parameters() if p.ndim == 2).clone()

    first = weight(load_parts(opt_profile, "random"))
    assert torch.equal(first, weight(load_parts(opt_profile, "random"), "unet", "grounder"))
    state = torch.random.get_rng_state()
    assert not torch.equal(first, weight(load_parts(opt_profile, "random", seed=1)))
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_empty_caption_is_the_text_towers(opt_profile: Profile) -> None:
    parts = load_parts(opt_profile, "random")
    parts.hold(["unet", "phrase_encoder"])
    assert torch.equal(parts.model.unet.null_conditioning, parts.model.encode_captions([""]))
    assert parts.model.unet.null_conditioning.abs().sum() > 0


def test_what_is_missing_is_said_before_anything_is_read(opt_profile: Profile, folder: Path) -> None:
    (folder / "grounder.safetensors").rename(folder / "elsewhere")
    with pytest.raises(WeightsError, match=r"grounder.safetensors are missing"):
        load_parts(opt_profile, folder)
    (folder / "elsewhere").rename(folder / "grounder.safetensors")
    (folder / "llm" / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"llm holds no \*.safetensors"):
        load_parts(opt_profile, folder)


def test_a_folder_goes_before_the_hub(opt_profile: Profile, tmp_path: Path) -> None:
    (tmp_path / "llm").mkdir()
    (tmp_path / "vae").mkdir()
    found = local_sources(opt_profile, tmp_path)
    sources = (found.llm.source, found.vae.source, found.clip.source, found.unet.source)
    assert sources == (str(tmp_path / "llm"), str(tmp_path), "hub/clip", "hub/gligen")
