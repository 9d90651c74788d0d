"""The frozen parts around the UNet in training: a scene's conditions, and sampling from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import convert_conv2d_weight_memory_format

from mgcc_ref.config import Profile
from mgcc_ref.networks.clip import TextEncoder, build_clip
from mgcc_ref.networks.unet import GroundedUNet
from mgcc_ref.networks.vae import PixelAutoencoder
from mgcc_ref.sampling import Told, sample_guided
from mgcc_ref.schedule import compile_schedule
from mgcc_ref.story.captions import CAPTION_WORDS
from mgcc_ref.story.world.scene import Scene
from mgcc_ref.story.world.sprites import LABELS
from mgcc_ref.tokens import caption_tokenizer, encode_captions
from mgcc_ref.train.loop import on_device_of
from mgcc_ref.train.pixels import scene_pixels, to_image_range
from mgcc_ref.weights import load_module


class ScenePainter:
    """Trained VAE and text tower of a weights folder, and a fresh `unet` for their latents and embeddings."""

    def __init__(self, profile: Profile, weights: Path) -> None:
        self.profile = profile
        self.vae = PixelAutoencoder(profile.vae.channels, profile.unet.latent_channels)
        load_module(self.vae, weights / "vae.safetensors")
        clip = build_clip(profile.clip)
        load_module(clip, weights / "clip.safetensors")
        self.text_encoder = TextEncoder(clip.eval()).requires_grad_(False)
        self.vae.eval().requires_grad_(False)
        self.tokenizer = caption_tokenizer(CAPTION_WORDS, profile.clip.text_positions)
        with torch.no_grad():
            self.phrase_table = self.text_encoder(encode_captions(self.tokenizer, LABELS))[1]  # (L, D_p)
            null = self.text_encoder(encode_captions(self.tokenizer, [""]))[0]
        width = profile.clip.text_hidden
        unet = GroundedUNet(profile.unet, width, profile.clip.text_positions, width)
        unet.null_conditioning.copy_(null)
        unet.layout_map.whiten(self.phrase_table)
        self.unet: GroundedUNet = convert_conv2d_weight_memory_format(unet, torch.channels_last)

    def encode(self, scenes: list[Scene]) -> Tensor:
        """Latents of the scenes' true pictures: (B, C, h, w)."""
        with torch.no_grad():
            return self.vae.encode(scene_pixels(scenes, self.profile.image_px))

    def boxes(self, scenes: Sequence[Scene]) -> dict[str, Tensor]:
        """The UNet's boxes, box_mask and phrases for the scenes, and the cells inside boxes."""
        n, size = self.profile.max_objects, self.profile.unet.latent_px
        boxes, mask = np.zeros((len(scenes), n, 4), np.float32), np.zeros((len(scenes), n), np.float32)
        labels, inside = np.zeros((len(scenes), n), np.int64), np.zeros((len(scenes), size, size), np.float32)
        for b, scene in enumerate(scenes):
            for i, item in enumerate(scene.objects[:n]):
                boxes[b, i], mask[b, i], labels[b, i] = item.box, 1, LABELS.index(item.label)
                x1, y1, x2, y2 = (np.array(item.box) * size).round().astype(int)
                inside[b, y1 : y2 + 1, x1 : x2 + 1] = 1
        mask_t = torch.from_numpy(mask)
        return {
            "boxes": torch.from_numpy(boxes),
            "box_mask": mask_t,
            "phrases": self.phrase_table[torch.from_numpy(labels)] * mask_t.unsqueeze(-1),
            "inside": torch.from_numpy(inside),
        }

    def conditions(self, scenes: list[Scene], captions: list[str]) -> dict[str, Tensor]:
        """The UNet's conditions for each scene: those of `boxes`, and the captions' conditioning."""
        with torch.no_grad():
            conditioning = self.text_encoder(encode_captions(self.tokenizer, captions))[0]
        return {**self.boxes(scenes), "conditioning": conditioning}

    def trajectory(
        self, scenes: list[Scene], captions: list[str], *, steps: int, guidance: float, seed: int | list[int]
    ) -> Iterator[Tensor]:
        """Yield x_T and the latents after every guided step, from the scenes' own boxes: (B, C, h, w), on the CPU."""
        table = compile_schedule(self.profile.sampler, self.profile.unet.prediction, steps)
        unet, size = self.unet, self.profile.unet.latent_px
        conditions = on_device_of(unet, self.conditions(scenes, captions))
        shape = (len(scenes), self.profile.unet.latent_channels, size, size)
        x_T = torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, dtype=np.float32))
        yield x_T
        x_T = x_T.to(conditions["boxes"].device)
        told = Told(**{name: conditions[name] for name in Told._fields})
        for x in sample_guided(unet, table, x_T, told, guidance=guidance):
            yield x.cpu()

    def draw(self, scenes: list[Scene], captions: list[str], *, steps: int, guidance: float, seed: int) -> np.ndarray:
        """Sample pictures for `scenes` from their own boxes: (B, H, W, 3) uint8."""
        *_, latents = self.trajectory(scenes, captions, steps=steps, guidance=guidance, seed=seed)
        return to_image_range(self.vae.decode(latents))
