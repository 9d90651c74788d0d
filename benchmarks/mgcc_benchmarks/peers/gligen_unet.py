"""A UNet of the paper's form (GLIGEN's gates, PLMS, epsilon) small enough for a CPU, with seeded random weights.

Both sides build it from here: ours through exported graphs and the runtime's denoising, theirs in diffusers' pipeline.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from transformers import CLIPTokenizer

from mgcc_ref.config import Grounding, Profile, SamplerConfig, UNetConfig, VaeConfig, get_profile
from mgcc_ref.model import MgccModel, load_model

STEPS, GUIDANCE = 20, 7.5
BOXES = ((0.1, 0.2, 0.5, 0.7), (0.55, 0.3, 0.9, 0.95))
PHRASES = ("a", "b")  # the weights are random: one letter a phrase needs no merges in CLIP's kind of tokenizer
_SPECIAL = {"[PAD]": 0, "<|startoftext|>": 1, "[UNK]": 2, "<|endoftext|>": 3}
_WIDTH = 128


def gligen_profile(channels: tuple[int, ...] = (64, 128, 192), latent_px: int = 16) -> Profile:
    """Ten million parameters in the paper's form; everything but the UNet is the tiny profile's."""
    tiny = get_profile("tiny")
    attention = tuple(i < len(channels) - 1 for i in range(len(channels)))  # the last level has none, as in SD 1
    return replace(
        tiny,
        name="gligen",
        clip=replace(tiny.clip, stem_channels=(), text_hidden=_WIDTH, text_heads=4, text_positions=77),
        unet=UNetConfig(Grounding.GLIGEN, 4, latent_px, channels, attention, 2, 8, 32, "epsilon"),
        vae=VaeConfig((32, 32, 32, 32), kl=True, scaling_factor=0.18215),
        sampler=SamplerConfig("PNDMScheduler", "scaled_linear", 0.00085, 0.012, STEPS, GUIDANCE),
        max_objects=30,
    )


def gligen_model() -> MgccModel:
    """The profile with seeded random weights, which have their gates open."""
    return load_model(gligen_profile(), "random")


def gligen_tokenizer(model: MgccModel) -> CLIPTokenizer:
    """CLIP's kind of tokenizer that knows our phrases."""
    letters = {f"{phrase}</w>": len(_SPECIAL) + i for i, phrase in enumerate(PHRASES)}
    bare = {phrase: len(_SPECIAL) + len(PHRASES) + i for i, phrase in enumerate(PHRASES)}
    return CLIPTokenizer(
        vocab={**_SPECIAL, **letters, **bare},
        merges=[],
        pad_token="[PAD]",
        unk_token="[UNK]",
        model_max_length=model.profile.clip.text_positions,
    )


@torch.no_grad()
def gligen_inputs(model: MgccModel) -> dict[str, Tensor]:
    """The inputs of a request: noise (1, C, h, w), conditioning (1, N_c, D_c), and the layout as in the contract."""
    limit, tokenizer = model.profile.max_objects, gligen_tokenizer(model)
    ids = tokenizer(list(PHRASES), padding="max_length", max_length=tokenizer.model_max_length, return_tensors="pt")
    boxes, mask, phrases = torch.zeros(1, limit, 4), torch.zeros(1, limit), torch.zeros(1, limit, _WIDTH)
    boxes[0, : len(BOXES)], mask[0, : len(BOXES)] = torch.tensor(BOXES), 1.0
    phrases[0, : len(BOXES)] = model.text_encoder(ids.input_ids)[1]
    unet, generator = model.profile.unet, torch.Generator().manual_seed(0)
    noise = torch.randn((1, unet.latent_channels, unet.latent_px, unet.latent_px), generator=generator)
    conditioning = model.encode_captions(["night , large fox left , small house right"])
    return {
        "noise": noise, "conditioning": conditioning, "boxes": boxes, "box_mask": mask, "phrase_embeddings": phrases,
    }  # fmt: skip
