"""CLIP: the frozen vision tower, and the text tower that encodes captions and phrases for the UNet.

Both are `transformers` modules; the story profile trains a small pair on StoryWorld, the paper profile loads
ViT-L/14. Only the projection to the language model's visual tokens is MGCC's own.
"""

from __future__ import annotations

from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from mgcc_ref.config import ClipConfig, VisualPooling
from mgcc_ref.networks.visual_projection import build_projection


def clip_settings(config: ClipConfig) -> CLIPConfig:
    """The profile's sizes as a config of `transformers`."""
    shared = {"projection_dim": config.projection, "hidden_act": config.activation}
    text = {
        "hidden_size": config.text_hidden,
        "intermediate_size": 4 * config.text_hidden,
        "num_hidden_layers": config.text_layers,
        "num_attention_heads": config.text_heads,
        "vocab_size": config.text_vocabulary,
        "max_position_embeddings": config.text_positions,
        "eos_token_id": config.eos_token_id,
        **shared,
    }
    vision = {
        "hidden_size": config.vision_hidden,
        "intermediate_size": 4 * config.vision_hidden,
        "num_hidden_layers": config.vision_layers,
        "num_attention_heads": config.vision_heads,
        "image_size": config.image_px,
        "patch_size": config.patch_px,
        **shared,
    }
    return CLIPConfig(text_config=text, vision_config=vision, projection_dim=config.projection)


def build_clip(config: ClipConfig) -> CLIPModel:
    """A CLIP model of the profile's size with fresh weights."""
    clip = CLIPModel(clip_settings(config))
    if config.stem_channels:
        clip.vision_model.embeddings.patch_embedding = ConvStem(config)
    return clip


class ConvStem(nn.Sequential):
    """Pixels (B, 3, H_v, W_v) -> patch embeddings (B, width, H_v/p, W_v/p) by stride-2 3x3 convolutions.

    They replace the single p x p convolution of a large ViT (Xiao et al., arXiv 2106.14881). Trained for minutes, a
    small ViT's patch convolution detects colours alone; these layers detect shapes, wherever the object stands.
    """

    def __init__(self, config: ClipConfig) -> None:
        if config.patch_px != 2 ** (len(config.stem_channels) + 1):
            raise ValueError(
                f"{len(config.stem_channels)} stem channels reduce {2 ** (len(config.stem_channels) + 1)} times, "
                f"not {config.patch_px} as patch_px says; give log2(patch_px) - 1 of them"
            )
        layers: list[nn.Module] = []
        width_in = 3
        for width in config.stem_channels:
            layers += [nn.Conv2d(width_in, width, 3, stride=2, padding=1), nn.GroupNorm(1, width), nn.GELU()]
            width_in = width
        super().__init__(*layers, nn.Conv2d(width_in, config.vision_hidden, 3, stride=2, padding=1))

    @property
    def weight(self) -> Tensor:
        """The last convolution's weight: `transformers` reads the tower's dtype from it."""
        last = self[-1]
        assert isinstance(last, nn.Conv2d)
        return last.weight


class TextEncoder(nn.Module):
    """Caption or phrase ids (B, N_c) int64 -> hidden states (B, N_c, D_c) and pooled output (B, D_p), float32."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.tower = clip.text_model

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        output = self.tower(input_ids=input_ids)
        return output.last_hidden_state, output.pooler_output


class PhraseEncoder(nn.Module):
    """Stage `phrase_encoder`: phrase ids (1, N_c) int64 -> embedding (1, D_p)."""

    def __init__(self, text_encoder: TextEncoder) -> None:
        super().__init__()
        self.text_encoder = text_encoder

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.text_encoder(input_ids)[1]


class VisionEncoder(nn.Module):
    """Stage `vision_encoder`: pixel_values (B, 3, H_v, W_v) -> visual_tokens (B, k, D).

    POOLED is GILL's way: one linear map of the class token to all k tokens. GRID keeps positions: see
    `GridProjection`.
    """

    def __init__(self, clip: CLIPModel, config: ClipConfig, pooling: VisualPooling, tokens: int, hidden: int) -> None:
        super().__init__()
        self.tower = clip.vision_model
        self.pooling, self.tokens, self.hidden = pooling, tokens, hidden
        self.projection = build_projection(config, pooling, tokens, hidden)

    def vision_features(self, pixel_values: Tensor) -> tuple[Tensor, ...]:
        """The projection's inputs: patches (B, G*G, D_v) and class token (B, D_v); POOLED: the class token alone."""
        output = self.tower(pixel_values=pixel_values)
        if self.pooling is VisualPooling.POOLED:
            return (output.pooler_output,)
        return self.tower.post_layernorm(output.last_hidden_state[:, 1:]), output.pooler_output

    def forward(self, pixel_values: Tensor) -> Tensor:
        projected = self.projection(*self.vision_features(pixel_values))
        return projected.reshape(pixel_values.shape[0], self.tokens, self.hidden)
