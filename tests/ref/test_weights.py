"""Foreign formats: hub layouts on disk, our own safetensors, GGUF."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mgcc_ref.config import Profile
from mgcc_ref.model import Alignment, MgccModel, load_model
from mgcc_ref.published.hub import find_folder, find_llm
from mgcc_ref.weights import WeightsError, load_module, save_module


@pytest.fixture(scope="module")
def published(gated: MgccModel, gated_profile: Profile, tmp_path_factory: pytest.TempPathFactory) -> Profile:
    """The gated profile with every published part in the hub's layout on disk, as a user with weights has it."""
    folder = tmp_path_factory.mktemp("hub")
    gated.clip.save_pretrained(folder / "clip")
    gated.unet.unet.save_pretrained(folder / "gligen" / "unet")
    gated.autoencoder.save_pretrained(folder / "gligen" / "vae")
    llm = gated_profile.llm
    torch.manual_seed(5)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=llm.vocabulary,
            hidden_size=llm.hidden,
            intermediate_size=llm.intermediate,
            num_hidden_layers=llm.layers,
            num_attention_heads=llm.heads,
            num_key_value_heads=llm.kv_heads,
            tie_word_embeddings=True,
            rms_norm_eps=llm.norm_eps,
        )
    ).save_pretrained(folder / "llm")
    gated.tokenizer.save(str(folder / "llm" / "tokenizer.json"))
    save_module(Alignment(gated), folder / "ours" / "alignment.safetensors")
    save_module(gated.grounder, folder / "ours" / "grounder.safetensors")
    return replace(
        gated_profile,
        llm=replace(llm, source=str(folder / "llm")),
        clip=replace(gated_profile.clip, source=str(folder / "clip")),
        unet=replace(gated_profile.unet, source=str(folder / "gligen")),
        vae=replace(gated_profile.vae, source=str(folder / "gligen")),
    )


def ours(profile: Profile) -> Path:
    return Path(profile.llm.source).parent / "ours"


def test_published_parts_are_found_in_the_hubs_layout(
    published: Profile, gated: MgccModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # CLIP's own tokenizer is no part of this test: the small text tower keeps its word-level one
    monkeypatch.setattr("mgcc_ref.published.tokenizer_files.load_clip_tokenizer", lambda *_: gated.text_tokenizer)
    model = load_model(published, ours(published), seed=99)
    for part in ("clip", "unet", "autoencoder"):
        wanted = getattr(gated, part).state_dict()
        for name, value in getattr(model, part).state_dict().items():
            assert torch.equal(value, wanted[name]), (part, name)
    assert not torch.equal(model.llm.embed_tokens.weight, gated.llm.embed_tokens.weight)


def test_a_missing_source_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"the UNet cannot be read from .*has no folder unet; give a local folder"):
        find_folder(str(tmp_path), "UNet", "unet")


def test_weights_of_another_size_name_the_tensor(gated: MgccModel, tmp_path: Path) -> None:
    path = save_module(torch.nn.Linear(3, 2), tmp_path / "grounder.safetensors")
    with pytest.raises(WeightsError, match=r"do not fit Linear: weight"):
        load_module(torch.nn.Linear(4, 2), path)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path, published: Profile) -> None:
    shutil.copy(Path(published.llm.source) / "config.json", tmp_path)
    with pytest.raises(WeightsError, match=r"holds no \*.safetensors; pickled weights are not read"):
        load_model(replace(published, llm=replace(published.llm, source=str(tmp_path))), ours(published))


@pytest.mark.slow
def test_smollm2_from_its_package_writes_what_transformers_writes() -> None:
    """The GGUF reader's renaming and rotary order, by the text that comes out: 12 greedy tokens."""
    from transformers import AutoModelForCausalLM

    from mgcc_ref.config import get_profile
    from mgcc_ref.model import build_llm
    from mgcc_ref.published.tokenizer_files import load_llm_tokenizer

    config = get_profile("story")
    path = find_llm(config.llm.source)
    ids = load_llm_tokenizer(path).encode("A fox and a penguin walk in the snow. The fox", add_special_tokens=False).ids
    llm = build_llm(config, filled=True).eval()
    with torch.no_grad():
        out = llm(llm.embed_tokens(torch.tensor([ids])), *llm.empty_cache())
        written = []
        for _ in range(12):
            written.append(int(out[0][0, 0, : config.llm.vocabulary].argmax()))
            out = llm(llm.embed_tokens(torch.tensor([[written[-1]]])), *out[2:])
        theirs = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32).eval()
        expected = theirs.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False)[0, len(ids) :].tolist()
    assert written == expected
