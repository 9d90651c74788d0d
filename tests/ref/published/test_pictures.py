"""GILL, OPT, CLIP and GLIGEN from published files alone: the picture that their own libraries draw of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler
from PIL import Image
from safetensors.torch import save_file

from mgcc_ref.config import LoraConfig, Profile, ProfileError, get_profile
from mgcc_ref.model import load_model
from mgcc_ref.networks.grounder import LayoutHead
from mgcc_ref.parts import load_parts
from mgcc_ref.pipeline import GroundedObject, ReferencePipeline
from mgcc_ref.published.derive import Sources, derive_profile
from mgcc_ref.weights import WeightsError, save_module
from mgcc_runtime.errors import EXIT_BAD_INPUT, EXIT_DONE
from tests.gills_picture import gills_conditioning, gligens_picture
from tests.published import gill_of, gligen_unet, kl_autoencoder, publish_clip, publish_gill, publish_llama
from tools import derive_profile as tool

PARTS = [
    "A zebra stands here. ",
    Image.fromarray(np.arange(56 * 56 * 3, dtype=np.uint8).reshape(56, 56, 3)),
    " And now?",
]
BOXES = ([0.1, 0.2, 0.6, 0.7], [0.5, 0.5, 0.9, 1.0])
PHRASES = ("a zebra", "a tall tree")
LIKE = get_profile("gill-tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_gill(tmp_path_factory.mktemp("weights"))[0]


@pytest.fixture(scope="module")
def profile(folder: Path) -> Profile:
    return get_profile(str(folder / "profile.json"))


def test_the_profile_is_what_it_is_like_at_the_folders_sizes(folder: Path, profile: Profile) -> None:
    llm = replace(profile.llm, vocabulary=LIKE.llm.vocabulary, source="")
    same = replace(
        profile, name=LIKE.name, llm=llm, clip=replace(profile.clip, source=""), unet=replace(profile.unet, source=""),
        vae=replace(profile.vae, source=""),
    )  # fmt: skip
    assert same == LIKE
    assert profile.llm.vocabulary == 260 and profile.template.opening == "</s>" and profile.end_tokens == ("</s>",)
    assert profile.argument == str(folder / "profile.json")


def test_the_picture_is_that_of_transformers_and_diffusers(folder: Path, profile: Profile) -> None:
    conditioning = gills_conditioning(folder, gill_of(folder), LIKE.refiner.mapper_heads, PARTS)
    latents, wanted = gligens_picture(folder, conditioning, list(zip(PHRASES, BOXES, strict=True)), seed=5, steps=12)
    reference = ReferencePipeline(load_model(profile, folder))
    boxes = [GroundedObject(label, tuple(box), 1.0) for label, box in zip(PHRASES, BOXES, strict=True)]

    def apart(found: torch.Tensor) -> float:
        return float((found - latents).norm() / latents.norm())

    drawn = reference.generate(PARTS, seed=5, steps=12, boxes=boxes)
    torch.testing.assert_close(drawn.conditioning, conditioning, atol=1e-5, rtol=1e-5)
    assert apart(drawn.latents) < 1e-4
    assert np.abs(np.asarray(drawn.image).astype(int) - wanted.astype(int)).max() <= 1
    for parts, given in ((PARTS, boxes[:1]), (["A lighthouse."], boxes)):  # the boxes count, and the words
        assert apart(reference.generate(parts, seed=5, steps=12, boxes=given).latents) > 5e-3


def test_part_by_part_it_is_the_same_model(folder: Path, profile: Profile) -> None:
    whole, parts = load_model(profile, folder), load_parts(profile, folder)
    parts.hold(["refiner", "unet"])
    for name, value in parts.model.unet.state_dict().items():
        assert torch.equal(value, whole.unet.state_dict()[name]), name
    assert torch.equal(parts.model.refiner.image_embeddings, whole.refiner.image_embeddings)


def test_a_lora_in_the_folder_is_fused_into_both_networks(folder: Path, profile: Profile, tmp_path: Path) -> None:
    unet = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    clip = "lora_te_text_model_encoder_layers_0_mlp_fc1"
    torch.manual_seed(0)
    state = {f"{name}.lora_down.weight": torch.randn(2, wide) for name, wide in ((unet, 32), (clip, 64))}
    state |= {f"{name}.lora_up.weight": torch.randn(wide, 2) for name, wide in ((unet, 32), (clip, 256))}
    (tmp_path / "lora").mkdir()
    save_file(state, tmp_path / "lora" / "a.safetensors")
    found = Sources.of(tmp_path, LIKE, {"llm": str(folder / "llm"), "clip": str(folder / "clip"),
                                        "unet": str(folder), "vae": str(folder)})  # fmt: skip
    with_lora = derive_profile(LIKE, "mine", found)
    assert with_lora.loras == (LoraConfig(str(tmp_path / "lora" / "a.safetensors")),)
    before, after = load_model(profile, folder), load_model(with_lora, folder)
    for part, name, layer in (
        ("unet", unet, "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"),
        ("clip", clip, "text_model.encoder.layers.0.mlp.fc1.weight"),
    ):
        old, new = (dict(getattr(model, part).named_parameters()) for model in (before, after))
        added = state[f"{name}.lora_up.weight"] @ state[f"{name}.lora_down.weight"]
        torch.testing.assert_close(new[layer], old[layer] + added)
        assert [n for n in old if not torch.equal(old[n], new[n])] == [layer]
    parts = load_parts(with_lora, folder)
    parts.hold(["unet"])
    assert torch.equal(parts.model.unet.null_conditioning, after.unet.null_conditioning)
    assert not torch.equal(before.unet.null_conditioning, after.unet.null_conditioning)


def few_steps(folder: Path, where: Path) -> Profile:
    """A profile of four steps with a LoRA of no effect, so that the libraries draw the same without it."""
    unet = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    (where / "lora").mkdir()
    state = {f"{unet}.lora_down.weight": torch.zeros(2, 32), f"{unet}.lora_up.weight": torch.zeros(32, 2)}
    save_file(state, where / "lora" / "few.safetensors")
    found = Sources.of(where, LIKE, {"llm": str(folder / "llm"), "clip": str(folder / "clip"),
                                     "unet": str(folder), "vae": str(folder)})  # fmt: skip
    return derive_profile(LIKE, "few", found, few_steps=4)


def test_few_steps_are_ddims_without_guidance(folder: Path, profile: Profile, tmp_path: Path) -> None:
    few = few_steps(folder, tmp_path)
    assert few.sampler.distilled and few.sampler.default_steps == 4 and few.sampler.beta_start == 0.00085
    conditioning = gills_conditioning(folder, gill_of(folder), LIKE.refiner.mapper_heads, PARTS)
    latents, _ = gligens_picture(
        folder, conditioning, list(zip(PHRASES, BOXES, strict=True)), seed=5, steps=4, few=True
    )
    reference = ReferencePipeline(load_model(few, folder))
    boxes = [GroundedObject(label, tuple(box), 1.0) for label, box in zip(PHRASES, BOXES, strict=True)]
    drawn = reference.generate(PARTS, seed=5, boxes=boxes).latents
    assert float((drawn - latents).norm() / latents.norm()) < 1e-4
    other = reference.generate(PARTS, seed=5, boxes=boxes[:1]).latents
    assert float((other - latents).norm() / latents.norm()) > 1e-3
    with pytest.raises(WeightsError, match="4 steps were asked for, and there is no LoRA"):
        derive_profile(LIKE, "few", Sources.of(folder, LIKE, {}), few_steps=4)


def test_a_scheduler_that_adds_noise_is_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "unet", tmp_path / "unet")
    LCMScheduler(beta_schedule="scaled_linear").save_pretrained(tmp_path / "scheduler")
    found = Sources.of(folder, LIKE, {"unet": str(tmp_path)})
    with pytest.raises(WeightsError, match="scheduler is LCMScheduler, which adds new noise at each step"):
        derive_profile(LIKE, "mine", found)


def test_a_profile_over_llama_has_its_tokens(tmp_path: Path, folder: Path) -> None:
    publish_llama(tmp_path / "llm")
    found = derive_profile(LIKE, "mine", Sources.of(folder, LIKE, {"llm": str(tmp_path / "llm")}))
    assert (found.llm.family, found.llm.tied, found.llm.kv_heads, found.llm.source) == (
        "llama", False, 2, str(tmp_path / "llm"),
    )  # fmt: skip
    assert found.template.opening == "<s>" and found.end_tokens == ("</s>",)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda at: gligen_unet("default").save_pretrained(at / "unet"), "is a plain one .*, and gill-tiny places"),
        (
            lambda at: gligen_unet(cross_attention_dim=32).save_pretrained(at / "unet"),
            "conditioned on 32 values a token",
        ),
        (lambda at: kl_autoencoder(latent_channels=8).save_pretrained(at / "vae"), "has 8 latent channels, each for 8"),
        (lambda at: (at / "clip" / "config.json").unlink(), r"clip lacks config\.json"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(
    tmp_path: Path, folder: Path, spoil: Callable[[Path], Any], said: str
) -> None:
    publish_clip(tmp_path / "clip")
    gligen_unet().save_pretrained(tmp_path / "unet")
    kl_autoencoder().save_pretrained(tmp_path / "vae")
    spoil(tmp_path)
    sources = Sources.of(tmp_path, LIKE, {"llm": str(folder / "llm")})
    with pytest.raises(WeightsError, match=said):
        derive_profile(LIKE, "mine", sources)


def test_the_tool_writes_it_and_says_what_is_missing(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.json"
    arguments = ["--like", "gill-tiny", "--weights", str(folder), "--name", "mine", "--out", str(out)]
    assert tool.main(arguments) == EXIT_DONE
    assert "opt of 2 blocks of width 128, pictures of 64 pixels" in capsys.readouterr().out
    assert get_profile(str(out)).name == "mine"
    assert tool.main(["--like", "gill-tiny", "--weights", str(tmp_path)]) == EXIT_BAD_INPUT
    assert "there is no folder llm and profile gill-tiny names no other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p["llm"].update(hidden="wide"), r"llm\.hidden: Input should be a valid integer\); correct it"),
        (lambda p: p["unet"].pop("heads"), r"unet\.heads: Field required"),
        (lambda p: p["clip"].update(colour="red"), r"clip\.colour: there is no such field"),
        (lambda p: p.update(name="a/b"), "is called 'a/b', expected letters, digits, dots and dashes"),
        (lambda p: p["refiner"].update(cmrm_blocks=2), "has 2 blocks, expected none"),
    ],
)
def test_a_file_that_is_no_profile_is_refused_by_field(
    tmp_path: Path, folder: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    values = json.loads((folder / "profile.json").read_text())
    change(values)
    (tmp_path / "p.json").write_text(json.dumps(values))
    with pytest.raises(ProfileError, match=said):
        get_profile(str(tmp_path / "p.json"))


def test_no_file_and_no_name() -> None:
    with pytest.raises(ProfileError, match=r"profile none\.json cannot be read"):
        get_profile("none.json")
    with pytest.raises(ProfileError, match="unknown profile 'none'; expected one of tiny, story"):
        get_profile("none")


def test_missing_weights_are_named_with_this_profiles_command(folder: Path, profile: Profile, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"alignment\.safetensors are missing; train them with `python"):
        load_model(profile, tmp_path)
    save_module(torch.nn.Linear(1, 1), tmp_path / "alignment.safetensors")
    with pytest.raises(WeightsError, match=rf"--profile {folder}/profile\.json --step grounder --weights {tmp_path}`"):
        load_parts(profile, tmp_path)
    assert LayoutHead is not None
