"""Work of the networks that others have published times of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from mgcc_ref.planner.counts import Work, count_work


@dataclass(frozen=True)
class Llm:
    """A decoder-only language model; `gated`: three matrices in the feed-forward part instead of two."""

    hidden: int
    layers: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    gated: bool = True


def _linear(inner: int, outer: int, positions: int) -> Work:
    """All weights take 4 bits where weights have 4, whatever their blocks, since these are others' builds."""
    return Work(2 * inner * outer * positions, inner * outer, (inner + outer) * positions, inner * outer)


def llm_body(m: Llm, positions: int, past: int, sequences: int = 1) -> tuple[Work, ...]:
    """All layers for `positions` new positions in total, each attending to `past`, with a cache for each sequence."""
    q, kv = m.heads * m.head_dim, m.kv_heads * m.head_dim
    attend = Work(2 * positions * past * q, 0, sequences * past * kv + positions * (q + m.heads * past))
    feed_forward = [_linear(m.hidden, m.intermediate, positions)] * (2 if m.gated else 1)
    layer = (
        _linear(m.hidden, q, positions), _linear(m.hidden, kv, positions), _linear(m.hidden, kv, positions),
        attend, attend, _linear(q, m.hidden, positions),
        *feed_forward, _linear(m.intermediate, m.hidden, positions),
    )  # fmt: skip
    return layer * m.layers


def llm_head(m: Llm, positions: int) -> tuple[Work, ...]:
    """From the last hidden states to logits."""
    return (_linear(m.hidden, m.vocabulary, positions),)


@cache
def stable_diffusion_unet() -> tuple[Work, ...]:
    """SD 1.5 at 512 px, both branches of guidance."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8).eval()

    return count_work(unet, lambda: unet(torch.empty(2, 4, 64, 64), torch.empty(2), torch.empty(2, 77, 768)))


@cache
def stable_diffusion_xl_unet() -> tuple[Work, ...]:
    """SDXL at 1024 px, both branches of guidance."""
    from diffusers import UNet2DConditionModel

    config: dict[str, Any] = {
        "sample_size": 128, "block_out_channels": (320, 640, 1280), "cross_attention_dim": 2048,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "transformer_layers_per_block": (1, 2, 10), "attention_head_dim": (5, 10, 20), "use_linear_projection": True,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }  # fmt: skip
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config).eval()

    def run() -> Any:
        added = {"text_embeds": torch.empty(2, 1280), "time_ids": torch.empty(2, 6)}
        latents, context = torch.empty(2, 4, 128, 128), torch.empty(2, 77, 2048)
        return unet(latents, torch.empty(2), context, added_cond_kwargs=added)

    return count_work(unet, run)


@cache
def stable_diffusion_vae(latent_px: int) -> tuple[Work, ...]:
    """The decoder that SD 1.x and SDXL share, latents to pixels."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ).eval()  # fmt: skip
    return count_work(vae, lambda: vae.decode(torch.empty(1, 4, latent_px, latent_px)))


@cache
def clip_vision() -> tuple[Work, ...]:
    """CLIP ViT-B/16 at 224 px, one image."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    with torch.device("meta"):
        tower = CLIPVisionModel(CLIPVisionConfig(patch_size=16, hidden_size=768, num_hidden_layers=12)).eval()
    return count_work(tower, lambda: tower(torch.empty(1, 3, 224, 224)))
