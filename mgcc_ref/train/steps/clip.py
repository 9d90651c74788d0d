"""Step `clip`: the small CLIP pair, on scenes and captions of the closed vocabulary.

Two losses: CLIP's own, image against caption over the batch; and a region loss, every patch against the
phrases of all labels and backgrounds. The region loss makes patch features recognise their content (the visual tokens
derive from them), and separates phrase embeddings (the UNet's boxes hold them).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mgcc_ref.config import Profile
from mgcc_ref.networks.clip import build_clip
from mgcc_ref.story.captions import CAPTION_WORDS, canonical_caption, paraphrase_caption
from mgcc_ref.story.world.scene import Background, Scene, random_scene
from mgcc_ref.story.world.sprites import LABELS
from mgcc_ref.tokens import caption_tokenizer, encode_captions
from mgcc_ref.train.loop import Batch, on_device_of
from mgcc_ref.train.pixels import scene_pixels
from mgcc_ref.weights import load_module, save_module

BATCH_SIZE = 64
PARAPHRASE_CHANCE = 0.4
PHRASES = (*LABELS, *(b.value for b in Background))
OBJECT_WEIGHT = 3.0  # of a patch inside a box in the region loss: most patches show the background, and are easy
HELD_BACK_SEED = 2_000_003


def patch_phrases(scene: Scene, patches_a_side: int) -> np.ndarray:
    """Index into PHRASES of the topmost object, or else the background, at each patch's centre: (G, G) int64."""
    names = np.full((patches_a_side, patches_a_side), PHRASES.index(scene.background.value), dtype=np.int64)
    centres = (np.arange(patches_a_side) + 0.5) / patches_a_side
    for item in scene.objects:
        x1, y1, x2, y2 = item.box
        rows, columns = (centres >= y1) & (centres < y2), (centres >= x1) & (centres < x2)
        names[np.ix_(rows, columns)] = LABELS.index(item.label)
    return names


class ClipObjective(nn.Module):
    phrase_ids: Tensor

    def __init__(self, profile: Profile) -> None:
        super().__init__()
        self.clip = build_clip(profile.clip)
        words = caption_tokenizer(CAPTION_WORDS, profile.clip.text_positions)
        self.register_buffer("phrase_ids", encode_captions(words, PHRASES), persistent=False)

    def embed_text(self, ids: Tensor) -> Tensor:
        return F.normalize(self.clip.text_projection(self.clip.text_model(input_ids=ids).pooler_output), dim=-1)

    def embed_images(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, E) of whole images and (B, G*G, E) of patches, unit length."""
        output = self.clip.vision_model(pixel_values=pixels)
        patches = self.clip.vision_model.post_layernorm(output.last_hidden_state[:, 1:])
        project = self.clip.visual_projection
        return F.normalize(project(output.pooler_output), dim=-1), F.normalize(project(patches), dim=-1)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        images, patches = self.embed_images(batch["pixels"])
        texts = self.embed_text(batch["ids"])
        scale = self.clip.logit_scale.exp().clamp(max=100.0)
        logits = scale * images @ texts.T
        target = torch.arange(logits.shape[0], device=logits.device)
        contrast = 0.5 * (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target))
        regions = scale * patches @ self.embed_text(self.phrase_ids).T  # (B, G*G, phrases)
        named = batch["patch_phrases"].flatten(1)  # (B, G*G)
        objects = (named < len(LABELS)).float()
        errors = F.cross_entropy(regions.transpose(1, 2), named, reduction="none")
        weights = 1 + (OBJECT_WEIGHT - 1) * objects
        region = (weights * errors).sum() / weights.sum()
        right = (regions.argmax(-1) == named).float()
        scores = {
            "top1": (logits.argmax(1) == target).float().mean(),
            "patch_top1": right.mean(),
            "object_top1": (right * objects).sum() / objects.sum().clamp_min(1),
        }
        return contrast + region, {k: v.detach() for k, v in scores.items()}


class ClipStep:
    """Trains the profile's CLIP from scratch."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self.tokenizer = caption_tokenizer(CAPTION_WORDS, profile.clip.text_positions)
        self.objective = ClipObjective(profile)
        self._held_back = self._draw(np.random.default_rng(HELD_BACK_SEED), 256, 0.0)

    def _draw(self, rng: np.random.Generator, size: int, paraphrase_chance: float) -> Batch:
        scenes = [random_scene(rng) for _ in range(size)]
        captions = [
            paraphrase_caption(s, rng) if rng.random() < paraphrase_chance else canonical_caption(s, rng)
            for s in scenes
        ]
        side = self.profile.clip.image_px // self.profile.clip.patch_px
        return {
            "pixels": scene_pixels(scenes, self.profile.clip.image_px),
            "ids": encode_captions(self.tokenizer, captions),
            "patch_phrases": torch.from_numpy(np.stack([patch_phrases(s, side) for s in scenes])),
        }

    def batch(self, rng: np.random.Generator) -> Batch:
        return self._draw(rng, BATCH_SIZE, PARAPHRASE_CHANCE)

    def evaluate(self) -> dict[str, float]:
        _, metrics = self.objective(on_device_of(self.objective, self._held_back), 0)
        return {k: float(v) for k, v in metrics.items()}

    def picture(self, path: Path) -> None:
        """Similarity of the first 64 held-back images (rows) and captions (columns); its diagonal should be bright."""
        batch = on_device_of(self.objective, self._held_back)
        images, _ = self.objective.embed_images(batch["pixels"][:64])
        similarity = (images @ self.objective.embed_text(batch["ids"][:64]).T).cpu()
        grey = ((similarity - similarity.min()) / (similarity.max() - similarity.min()) * 255).byte().numpy()
        Image.fromarray(grey).resize((512, 512), Image.Resampling.NEAREST).save(path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.objective.clip, folder / "clip.safetensors")]

    def load_weights(self, folder: Path) -> None:
        load_module(self.objective.clip, folder / "clip.safetensors")
