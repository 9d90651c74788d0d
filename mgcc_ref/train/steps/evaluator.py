"""Step `evaluator`: the CLIP of StoryBench's `clip_similarity`; no other part is trained with it.

CLIP's loss over the batch, where every scene also brings captions of two near misses (an object exchanged for
another, an object moved), so that names and places count and not only colours; and a loss on the cells of the grid.
Pictures are cropped, recoloured, blurred and noised. They are never mirrored, since captions contain left and right.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from mgcc_ref.story.bench_evaluator import TEXT_POSITIONS, Evaluator
from mgcc_ref.story.captions import CAPTION_WORDS, canonical_caption, paraphrase_caption
from mgcc_ref.story.world.scene import IMAGE_PX, PlacedObject, Scene, place, random_scene, render
from mgcc_ref.story.world.sprites import LABELS
from mgcc_ref.tokens import caption_tokenizer, encode_captions
from mgcc_ref.train.loop import Batch, on_device_of
from mgcc_ref.train.pixels import to_model_range
from mgcc_ref.train.steps.clip import PHRASES, patch_phrases
from mgcc_ref.weights import load_module, save_module

BATCH_SIZE = 48
EVALUATOR_SEED = 77_003  # of its weights and data, whatever --seed is: no other step may use the same data
HELD_BACK_SCENES = 256
PARAPHRASE_CHANCE = 0.3
OBJECT_WEIGHT = 3.0  # of a cell inside a box
CELLS_A_SIDE = 8
MAX_CROP = 0.2  # of the side
MIN_VISIBLE = 0.6  # of a box: the caption does not name objects that a crop cuts to less


def cropped(scene: Scene, pixels: np.ndarray, rng: np.random.Generator) -> tuple[Scene, np.ndarray]:
    """A square crop of the picture, scaled up, with its scene; boxes are cut at the edges."""
    side = round(IMAGE_PX * (1 - MAX_CROP * float(rng.random())))
    left, top = (int(rng.integers(IMAGE_PX - side + 1)) for _ in range(2))
    window = Image.fromarray(pixels).crop((left, top, left + side, top + side))
    shift = np.array([left, top, left, top]) / IMAGE_PX
    objects = []
    for item in scene.objects:
        whole = (np.array(item.box) - shift) * (IMAGE_PX / side)
        cut = np.clip(whole, 0, 1)
        area = np.prod(np.maximum(cut[2:] - cut[:2], 0)) / np.prod(whole[2:] - whole[:2])
        if area >= MIN_VISIBLE:
            x1, y1, x2, y2 = (float(v) for v in cut)
            objects.append(PlacedObject(item.label, (x1, y1, x2, y2)))
    grown = window.resize((IMAGE_PX, IMAGE_PX), Image.Resampling.BICUBIC)
    return Scene(scene.background, tuple(objects)), np.asarray(grown)


def recoloured(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation and tint changed a little; sometimes blurred or noisy, as a model may draw."""
    image = pixels.astype(np.float32)
    grey = image.mean(axis=-1, keepdims=True)
    image = grey + (image - grey) * rng.uniform(0.7, 1.3)
    image = 127.5 + (image - 127.5) * rng.uniform(0.8, 1.2) + rng.uniform(-20, 20) + rng.uniform(-10, 10, size=3)
    if rng.random() < 0.4:
        blur = rng.uniform(0.3, 1.3)
        image = gaussian_filter(image, (blur, blur, 0))
    if rng.random() < 0.4:
        image = image + rng.normal(0, rng.uniform(0, 12), image.shape)
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def renamed(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one object's label exchanged for another; without objects, with a new one."""
    if not scene.objects:
        return moved(scene, rng)
    i = int(rng.integers(len(scene.objects)))
    others = [label for label in LABELS if label != scene.objects[i].label]
    item = replace(scene.objects[i], label=others[int(rng.integers(len(others)))])
    return replace(scene, objects=(*scene.objects[:i], item, *scene.objects[i + 1 :]))


def moved(scene: Scene, rng: np.random.Generator) -> Scene:
    """The scene with one object moved by at least a third of the picture; without objects, with a new one."""
    if not scene.objects:
        return replace(scene, objects=(place(LABELS[int(rng.integers(len(LABELS)))], (0.5, 0.5), 40),))
    i = int(rng.integers(len(scene.objects)))
    old = scene.objects[i]
    while True:
        centre = (float(rng.random()), float(rng.random()))
        if max(abs(centre[0] - old.centre[0]), abs(centre[1] - old.centre[1])) > 1 / 3:
            item = place(old.label, centre, min(max(old.long_side_px, 16), 64))
            return replace(scene, objects=(*scene.objects[:i], item, *scene.objects[i + 1 :]))


class EvaluatorObjective(nn.Module):
    phrase_ids: Tensor

    def __init__(self, evaluator: Evaluator) -> None:
        super().__init__()
        self.evaluator = evaluator
        words = caption_tokenizer(CAPTION_WORDS, TEXT_POSITIONS)
        self.register_buffer("phrase_ids", encode_captions(words, PHRASES), persistent=False)

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        images, cells = self.evaluator.embed_images_and_cells(batch["pixels"])
        texts, misses = self.evaluator.embed_texts(batch["ids"]), self.evaluator.embed_texts(batch["miss_ids"])
        scale = self.evaluator.logit_scale.exp().clamp(max=100.0)
        logits = scale * images @ texts.T  # (B, B)
        near = scale * torch.einsum("be,bke->bk", images, misses.view(len(images), -1, misses.shape[-1]))  # (B, 2)
        target = torch.arange(len(logits), device=logits.device)
        contrast = F.cross_entropy(torch.cat([logits, near], dim=1), target) + F.cross_entropy(logits.T, target)
        named = batch["cell_phrases"].flatten(1)  # (B, 64)
        regions = scale * cells @ self.evaluator.embed_texts(self.phrase_ids).T
        objects = (named < len(LABELS)).float()
        errors = F.cross_entropy(regions.transpose(1, 2), named, reduction="none")
        weights = 1 + (OBJECT_WEIGHT - 1) * objects
        right = (regions.argmax(-1) == named).float()
        scores = {
            "top1": (logits.argmax(1) == target).float().mean(),
            "near_right": (logits.diagonal() > near.max(dim=1).values).float().mean(),
            "object_top1": (right * objects).sum() / objects.sum().clamp_min(1),
        }
        loss = 0.5 * contrast + (weights * errors).sum() / weights.sum()
        return loss, {k: v.detach() for k, v in scores.items()}


class EvaluatorStep:
    """Trains `Evaluator` from scratch."""

    def __init__(self) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(EVALUATOR_SEED)
            self.objective = EvaluatorObjective(Evaluator())
        self.tokenizer = caption_tokenizer(CAPTION_WORDS, TEXT_POSITIONS)
        rng = np.random.default_rng([EVALUATOR_SEED, 1])
        self._scenes = [random_scene(rng) for _ in range(HELD_BACK_SCENES)]
        self._held_back = self._assemble([(s, render(s)) for s in self._scenes], rng, paraphrase_chance=0.0)

    def batch(self, rng: np.random.Generator) -> Batch:
        own = np.random.default_rng([EVALUATOR_SEED, 2, int(rng.integers(2**62))])
        pairs = []
        for _ in range(BATCH_SIZE):
            scene = random_scene(own)
            scene, pixels = cropped(scene, render(scene), own)
            pairs.append((scene, recoloured(pixels, own)))
        return self._assemble(pairs, own, PARAPHRASE_CHANCE)

    def _assemble(
        self, pairs: list[tuple[Scene, np.ndarray]], rng: np.random.Generator, paraphrase_chance: float
    ) -> Batch:
        scenes = [scene for scene, _ in pairs]
        captions = [
            paraphrase_caption(s, rng) if rng.random() < paraphrase_chance else canonical_caption(s, rng)
            for s in scenes
        ]
        misses = [canonical_caption(miss, rng) for s in scenes for miss in (renamed(s, rng), moved(s, rng))]
        return {
            "pixels": to_model_range(np.stack([pixels for _, pixels in pairs])),
            "ids": encode_captions(self.tokenizer, captions),
            "miss_ids": encode_captions(self.tokenizer, misses),
            "cell_phrases": torch.from_numpy(np.stack([patch_phrases(s, CELLS_A_SIDE) for s in scenes])),
        }

    def evaluate(self) -> dict[str, float]:
        """Held-back scores, and whether a picture is nearer to itself blurred than to one with an object exchanged.

        `near_margin` is the cosine with the blurred picture minus that with the near miss: it must be above 0.
        """
        batch = on_device_of(self.objective, self._held_back)
        _, metrics = self.objective(batch, 0)
        rng = np.random.default_rng([EVALUATOR_SEED, 3])
        evaluator, pixels = self.objective.evaluator, batch["pixels"][:64]
        images = to_model_range(np.stack([render(renamed_in_place(s, rng)) for s in self._scenes[:64]]))
        blurred = F.avg_pool2d(F.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        own, soft, miss = (evaluator.embed_images(p.to(pixels.device)) for p in (pixels, blurred, images))
        margin = ((own * soft).sum(-1) - (own * miss).sum(-1)).mean()
        return {**{k: float(v) for k, v in metrics.items()}, "near_margin": float(margin)}

    def picture(self, path: Path) -> None:
        """Cosines of the first 64 held-back images (rows) and captions (columns); the diagonal should be bright."""
        batch = on_device_of(self.objective, self._held_back)
        evaluator = self.objective.evaluator
        cosine = (evaluator.embed_images(batch["pixels"][:64]) @ evaluator.embed_texts(batch["ids"][:64]).T).cpu()
        grey = ((cosine - cosine.min()) / (cosine.max() - cosine.min()) * 255).byte().numpy()
        Image.fromarray(grey).resize((512, 512), Image.Resampling.NEAREST).save(path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.objective.evaluator, folder / "evaluator.safetensors")]

    def load_weights(self, folder: Path) -> None:
        load_module(self.objective.evaluator, folder / "evaluator.safetensors")


def renamed_in_place(scene: Scene, rng: np.random.Generator) -> Scene:
    """`renamed`, with the new label's own aspect at the same centre, so that it can be rendered."""
    other = renamed(scene, rng)
    objects = tuple(
        new if new.label == old.label else place(new.label, old.centre, old.long_side_px)
        for old, new in zip(scene.objects, other.objects, strict=True)
    )
    return replace(other, objects=objects)
