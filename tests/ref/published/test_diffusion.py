"""UNets and autoencoders as they are published: equal to `diffusers`', or refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mgcc_ref.config import UNetConfig, get_profile
from mgcc_ref.networks.unet import build_unet
from mgcc_ref.networks.vae import build_autoencoder
from mgcc_ref.published.diffusion import load_unet, load_vae, unet_config, vae_config
from mgcc_ref.weights import WeightsError
from tests.published import WIDTH, gligen_unet, kl_autoencoder

#: The same weights, elsewhere in memory: sums may be of another order.
same = partial(torch.testing.assert_close, atol=2e-6, rtol=2e-6)
PAPER = get_profile("paper-tiny")
FILE = "diffusion_pytorch_model.safetensors"


def loaded(folder: Path, config: UNetConfig = PAPER.unet, width: int = WIDTH) -> nn.Module:
    with torch.device("meta"):
        unet = build_unet(config, width)
    load_unet(unet, config, width, folder)
    return unet.eval()


def loaded_vae(folder: Path) -> Any:
    with torch.device("meta"):
        vae = build_autoencoder(PAPER.vae, 4)
    load_vae(vae, PAPER.vae, 4, folder)
    return vae.eval()


def change_settings(folder: Path, **change: object) -> None:
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | change))


@torch.no_grad()
def predicted(unet: Any) -> torch.Tensor:
    seed = torch.Generator().manual_seed(0)
    latents, states = torch.randn(1, 4, 8, 8, generator=seed), torch.randn(1, 77, WIDTH, generator=seed)
    boxes = {"boxes": torch.rand(1, 30, 4, generator=seed), "masks": torch.ones(1, 30),
             "positive_embeddings": torch.randn(1, 30, WIDTH, generator=seed)}  # fmt: skip
    return unet(latents, torch.tensor([500]), states, cross_attention_kwargs={"gligen": boxes}, return_dict=False)[0]


def test_the_toys_are_the_papers_small(tmp_path: Path) -> None:
    gligen_unet().save_pretrained(tmp_path / "unet")
    kl_autoencoder().save_pretrained(tmp_path / "vae")
    found = unet_config(tmp_path / "unet")
    assert (replace(found.config, source=""), found.conditioning, found.gated) == (PAPER.unet, WIDTH, True)
    assert (replace(vae_config(tmp_path / "vae")[0], source=""), vae_config(tmp_path / "vae")[1]) == (PAPER.vae, 4)


def test_a_unet_predicts_what_diffusers_predicts(tmp_path: Path) -> None:
    theirs = gligen_unet()
    theirs.save_pretrained(tmp_path)
    same(predicted(loaded(tmp_path)), predicted(theirs))


@torch.no_grad()
def test_an_autoencoder_decodes_what_diffusers_decodes_under_old_names_too(tmp_path: Path) -> None:
    theirs, latents = kl_autoencoder(), torch.randn(1, 4, 4, 4)
    theirs.save_pretrained(tmp_path)
    wanted = theirs.decode(latents).sample
    same(loaded_vae(tmp_path).decode(latents).sample, wanted)
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}  # as SD 1.4's and 1.5's files
    state = load_file(tmp_path / FILE)
    for new, old in names.items():
        state = {key.replace(f"attentions.0.{new}.", f"attentions.0.{old}."): v for key, v in state.items()}
    assert "decoder.mid_block.attentions.0.proj_attn.weight" in state
    save_file(state, tmp_path / FILE)
    same(loaded_vae(tmp_path).decode(latents).sample, wanted)


def test_the_fp16_variant_alone_is_read(tmp_path: Path) -> None:
    theirs = gligen_unet().half()
    theirs.save_pretrained(tmp_path, variant="fp16")
    assert [f.name for f in tmp_path.glob("*.safetensors")] == ["diffusion_pytorch_model.fp16.safetensors"]
    same(predicted(loaded(tmp_path)), predicted(theirs.float()))


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({"attention_head_dim": 4}, "heads 4 where the profile has 2"),
        ({"block_out_channels": (32, 96)}, "block_channels 32, 96 where the profile has 32, 64"),
        ({"norm_num_groups": 16}, "norm_groups 16 where the profile has 8"),
        ({"layers_per_block": 2}, "layers_per_block 2 where the profile has 1"),
        ({"cross_attention_dim": 32}, r"conditioned on 32 values a token, and the profile's CLIP gives 64"),
        ({"attention_head_dim": (2, 4)}, r"attention_head_dim \[2, 4\], expected one of gated, default"),  # SD 2
        ({"use_linear_projection": True}, "use_linear_projection True"),  # SD 2
        ({"in_channels": 9}, "out_channels 4"),  # inpainting
        ({"time_cond_proj_dim": 32}, "time_cond_proj_dim 32"),  # a whole LCM
        (
            {"addition_embed_type": "text_time", "addition_time_embed_dim": 8,
             "projection_class_embeddings_input_dim": 96},
            "addition_embed_type text_time",  # SDXL
        ),
    ],
)  # fmt: skip
def test_another_unet_is_refused_by_field(tmp_path: Path, made: dict[str, object], said: str) -> None:
    gligen_unet(**made).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=said):
        loaded(tmp_path)


def test_a_unet_without_gates_is_refused_whether_it_says_so_or_not(tmp_path: Path) -> None:
    gligen_unet("default").save_pretrained(tmp_path)  # Stable Diffusion 1.5
    with pytest.raises(
        WeightsError, match=r"is a plain one \(attention_type 'default'\), and the profile places objects"
    ):
        loaded(tmp_path)
    change_settings(tmp_path, attention_type="gated")  # the tensors of the gates were random before
    with pytest.raises(WeightsError, match=r"it lacks .*fuser.* and \d+ more; give the weights"):
        loaded(tmp_path)


def test_other_classes_and_autoencoders_are_refused_by_name(tmp_path: Path) -> None:
    kl_autoencoder(scaling_factor=0.13025).save_pretrained(tmp_path / "sdxl")
    with pytest.raises(WeightsError, match=r"scaling_factor 0\.13025 where the profile has 0\.18215"):
        loaded_vae(tmp_path / "sdxl")
    kl_autoencoder(latent_channels=16, shift_factor=0.1).save_pretrained(tmp_path / "sd3")
    with pytest.raises(WeightsError, match=r"shift_factor 0\.1, which this project's autoencoder does not do"):
        loaded_vae(tmp_path / "sd3")
    kl_autoencoder(latent_channels=8).save_pretrained(tmp_path / "eight")
    with pytest.raises(WeightsError, match="has 8 latent channels, and the profile's UNet 4"):
        loaded_vae(tmp_path / "eight")
    gligen_unet().save_pretrained(tmp_path / "unet")
    change_settings(tmp_path / "unet", _class_name="ControlNetModel")
    with pytest.raises(WeightsError, match="is of a ControlNetModel, expected a UNet2DConditionModel"):
        loaded(tmp_path / "unet")


def test_pickles_and_the_original_layout_are_refused_with_the_command_that_converts(tmp_path: Path) -> None:
    unet = gligen_unet()
    unet.save_pretrained(tmp_path, safe_serialization=False)
    assert [f.name for f in tmp_path.glob("*.bin")] == ["diffusion_pytorch_model.bin"]
    with pytest.raises(
        WeightsError, match=r"but diffusion_pytorch_model\.bin; pickled .* tools/convert_checkpoint\.py"
    ):
        loaded(tmp_path)
    save_file({"input_blocks.0.0.weight": torch.zeros(2)}, tmp_path / FILE)
    with pytest.raises(
        WeightsError, match=r"original layout of Stable Diffusion under diffusers' file name; convert it"
    ):
        loaded(tmp_path)


def test_the_papers_unet_and_autoencoder_are_gligen_as_it_is_published(tmp_path: Path) -> None:
    """Stable Diffusion 1.4's config.json with GLIGEN's gates; nothing of that size is made."""
    settings = {
        "_class_name": "UNet2DConditionModel", "attention_head_dim": 8, "block_out_channels": [320, 640, 1280, 1280],
        "cross_attention_dim": 768, "sample_size": 64, "attention_type": "gated", "layers_per_block": 2,
        "down_block_types": [*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"],
        "up_block_types": ["UpBlock2D", *["CrossAttnUpBlock2D"] * 3],
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(settings))
    found, paper = unet_config(tmp_path), get_profile("paper").unet
    assert replace(found.config, source=paper.source) == paper and found.conditioning == 768
