"""CLIP as it is published: both towers equal `transformers`', its tokenizer too, or refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel, CLIPTextConfig, CLIPTextModel, CLIPTokenizerFast, CLIPVisionConfig, CLIPVisionModel

from mgcc_ref.config import ClipConfig, get_profile
from mgcc_ref.networks.clip import PhraseEncoder, TextEncoder, build_clip
from mgcc_ref.published.clip import clip_config, load_clip
from mgcc_ref.published.tokenizer_files import load_clip_tokenizer
from mgcc_ref.tokens import encode_captions
from mgcc_ref.weights import WeightsError
from tests.published import publish_clip

#: The same weights, elsewhere in memory: sums may be of another order.
same = partial(torch.testing.assert_close, atol=2e-6, rtol=2e-6)
PAPER = get_profile("paper-tiny").clip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[CLIPModel, Path]:
    folder = tmp_path_factory.mktemp("clip")
    return publish_clip(folder), folder


def change_settings(folder: Path, change: Callable[[dict[str, Any]], object], name: str = "config.json") -> None:
    settings = json.loads((folder / name).read_text())
    change(settings)
    (folder / name).write_text(json.dumps(settings))


def loaded(config: ClipConfig, folder: Path) -> CLIPModel:
    with torch.device("meta"):
        clip = build_clip(config)
    load_clip(clip, config, folder)
    return clip.eval()


def test_the_toy_is_the_papers_clip_small(saved: tuple[CLIPModel, Path]) -> None:
    assert replace(clip_config(saved[1]), source="") == PAPER  # its legacy end token and its pixels, too


@torch.no_grad()
def test_both_towers_give_what_transformers_gives(saved: tuple[CLIPModel, Path]) -> None:
    theirs, folder = saved
    ours = loaded(PAPER, folder)
    tokenizer = load_clip_tokenizer(folder, 77)
    texts = ["a zebra beside a lighthouse", ""]
    ids = encode_captions(tokenizer, texts)
    expected = CLIPTokenizerFast.from_pretrained(folder)(texts, padding="max_length", max_length=77)["input_ids"]
    assert ids.tolist() == expected
    wanted = theirs.text_model(input_ids=ids)
    encoder = TextEncoder(ours)
    states, pooled = encoder(ids)
    same(states, wanted.last_hidden_state)
    same(pooled, wanted.pooler_output)
    same(PhraseEncoder(encoder)(ids[:1]), wanted.pooler_output[:1])
    pixels = torch.randn(2, 3, 56, 56)
    same(ours.vision_model(pixels).pooler_output, theirs.vision_model(pixels).pooler_output)


def test_the_fp16_variant_alone_is_read(saved: tuple[CLIPModel, Path], tmp_path: Path) -> None:
    publish_clip(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    saved[0].half().save_pretrained(tmp_path, variant="fp16")
    saved[0].float()
    weight = loaded(PAPER, tmp_path).text_model.embeddings.token_embedding.weight
    assert weight.dtype is torch.float32
    assert torch.equal(weight, saved[0].text_model.embeddings.token_embedding.weight)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: (s["text_config"].update(hidden_act="gelu"), s["vision_config"].update(hidden_act="gelu")),
         "activation gelu where the profile has quick_gelu"),
        (lambda s: s["vision_config"].update(hidden_act="gelu"), "hidden_act gelu, which this project's CLIP"),
        (lambda s: s["vision_config"].update(num_attention_heads=4), "vision_heads 4 where the profile has 2"),
        (lambda s: s["text_config"].update(intermediate_size=128), "intermediate_size 128"),
        (lambda s: s["vision_config"].update(layer_norm_eps=1e-6), "layer_norm_eps 1e-06"),
        (lambda s: s["text_config"].update(eos_token_id=5), "eos_token_id 5 where the profile has 513"),
        (lambda s: s.update(model_type="siglip"), "is of a 'siglip', expected a clip"),
    ],
)  # fmt: skip
def test_other_settings_are_refused_by_name(tmp_path: Path, change: Callable[..., Any], said: str) -> None:
    publish_clip(tmp_path)
    change_settings(tmp_path, change)
    with pytest.raises(WeightsError, match=said):
        loaded(PAPER, tmp_path)


def test_other_pixels_are_refused_by_name(tmp_path: Path) -> None:
    publish_clip(tmp_path)
    change_settings(tmp_path, lambda s: s.update(image_mean=[0.5, 0.5, 0.5]), "preprocessor_config.json")
    with pytest.raises(WeightsError, match=r"pixel_mean 0\.5, 0\.5, 0\.5 where the profile has 0\.48145466"):
        loaded(PAPER, tmp_path)


def test_one_tower_alone_is_refused(tmp_path: Path) -> None:
    towers = {
        "clip_vision_model": CLIPVisionModel(
            CLIPVisionConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
        ),
        "clip_text_model": CLIPTextModel(
            CLIPTextConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, vocab_size=99)
        ),
    }  # fmt: skip
    for name, tower in towers.items():
        tower.save_pretrained(tmp_path / name)
        with pytest.raises(WeightsError, match=rf"is of one of CLIP's towers alone \({name}\), and both are needed"):
            loaded(PAPER, tmp_path / name)


def test_missing_and_extra_tensors_are_named(tmp_path: Path) -> None:
    publish_clip(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)  # older files hold it; it is counted
    save_file(state, tmp_path / "model.safetensors")
    loaded(PAPER, tmp_path)
    del state["visual_projection.weight"]
    state["text_model.prompt"] = torch.zeros(2)
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(
        WeightsError, match=r"it lacks visual_projection\.weight, holds text_model\.prompt beside; give"
    ):
        loaded(PAPER, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(WeightsError, match="holds no tokenizer of the CLIP; copy"):
        load_clip_tokenizer(tmp_path, 77)
