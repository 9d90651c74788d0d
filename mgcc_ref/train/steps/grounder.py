"""Step `grounder`: `LayoutHead` on stored context features, matched to the scene's objects (DETR, arXiv 2005.12872)."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from mgcc_ref.config import Profile, QuerySource
from mgcc_ref.grounder import LayoutHead, cxcywh_to_xyxy
from mgcc_ref.model import Alignment, MgccModel
from mgcc_ref.story.phrases import Split
from mgcc_ref.story.scene import render
from mgcc_ref.train.features import FeatureStore, pad_features
from mgcc_ref.train.loop import Batch, on_device_of
from mgcc_ref.train.mentions import mention_positions
from mgcc_ref.train.requests import Request, training_request
from mgcc_ref.train.steps.align import load_frozen
from mgcc_ref.weights import load_module, save_module

log = logging.getLogger("mgcc.train")

BATCH_SIZE = 48
TRAINING_REQUESTS, HELD_BACK_REQUESTS = 4000, 200
SEED, HELD_BACK_SEED = 8_000_003, 9_000_003
PHRASE_COST, BOX_COST, BOX_LOSS, CENTRE_LOSS = 100.0, 2.0, 5.0, 5.0
NEAR = 0.12  # a centre this close (share of the picture's side) counts as right in the running score


@dataclass(frozen=True)
class Targets:
    """One scene's objects: boxes (K, 4) cxcywh, phrase embeddings (K, D_p), label indices, pointer positions."""

    boxes: Tensor
    phrases: Tensor
    labels: tuple[int, ...]
    mentions: tuple[tuple[int, ...], ...]  # counted from the end of the context (-1 is the last position)

    def to(self, device: torch.device) -> Targets:
        return replace(self, boxes=self.boxes.to(device), phrases=self.phrases.to(device))


def scene_targets(model: MgccModel, request: Request, length: int) -> Targets:
    objects = request.target.objects
    mentions = mention_positions(model, request, {o.label for o in objects})
    labels = tuple(model.labels.index(o.label) for o in objects)
    corners = torch.tensor([o.box for o in objects]).view(-1, 4)
    centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    return Targets(
        boxes=torch.cat([centre, size], dim=1),
        phrases=model.label_embeddings[list(labels)],
        labels=labels,
        mentions=tuple(tuple(p - length for p in mentions.get(o.label, ())) for o in objects),
    )


def match(boxes: Tensor, logits: Tensor, phrases: Tensor, targets: Targets) -> tuple[np.ndarray, np.ndarray]:
    """Hungarian matching of Q queries to K objects by presence, box and phrase: (query indices, object indices).

    Phrases by distance, not by angle: cat and lion may stand at cosine 0.99, and must not be exchanged.
    """
    phrase_distance = torch.cdist(phrases, targets.phrases)  # (Q, K)
    box_distance = torch.cdist(boxes, targets.boxes, p=1)
    cost = PHRASE_COST * phrase_distance + BOX_COST * box_distance - logits.sigmoid()[:, None]
    return linear_sum_assignment(cost.detach().cpu().numpy())


class GrounderObjective(nn.Module):
    """Presence (cross-entropy), box (L1, the centre twice), phrase (cosine, LEARNED only) and pointer losses."""

    def __init__(self, head: LayoutHead) -> None:
        super().__init__()
        self.head = head
        self.targets: list[Targets] = []  # of the batch at hand; Hungarian matching wants Python objects

    def forward(self, batch: Batch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        boxes, logits, phrases, pointers = self.head.all_queries(batch["features"], batch["mask"])
        present = torch.zeros_like(logits)
        picked: list[tuple[int, int, int]] = []
        every = [targets.to(logits.device) for targets in self.targets]
        for b, targets in enumerate(every):
            queries, objects = match(boxes[b], logits[b], phrases[b], targets)
            present[b, queries] = 1.0
            picked += [(b, int(q), int(k)) for q, k in zip(queries, objects, strict=True)]
        rows, asked = torch.tensor([p[0] for p in picked]), torch.tensor([p[1] for p in picked])
        wanted = torch.stack([every[b].boxes[k] for b, _, k in picked])
        error = (boxes[rows, asked] - wanted).abs()
        presence = F.binary_cross_entropy_with_logits(logits, present, reduction="none").sum(dim=1).mean() / 3
        loss = presence + BOX_LOSS * error.mean() + CENTRE_LOSS * error[:, :2].mean()
        loss = loss + 0.1 * self._pointer_loss(pointers, picked)
        if self.head.query_source is QuerySource.LEARNED:
            meant = torch.stack([every[b].phrases[k] for b, _, k in picked])
            loss = loss + (1 - F.cosine_similarity(phrases[rows, asked], meant)).mean()
        near = (error[:, :2].amax(dim=1) < NEAR).float().mean()
        return loss, {"box_l1": error.mean().detach(), "near": near, "presence": presence.detach()}

    def _pointer_loss(self, pointers: Tensor, picked: list[tuple[int, int, int]]) -> Tensor:
        log_likelihood = F.log_softmax(pointers, dim=-1)
        losses = [
            -log_likelihood[b, q, list(self.targets[b].mentions[k])].logsumexp(0)
            for b, q, k in picked
            if self.targets[b].mentions[k]
        ]
        return torch.stack(losses).mean() if losses else pointers.new_zeros(())


class GrounderStep:
    def __init__(self, profile: Profile, weights: Path, run_folder: Path) -> None:
        self.model = load_frozen(profile, weights)
        load_module(Alignment(self.model), weights / "alignment.safetensors")
        self.head = self.model.grounder.requires_grad_(True)
        self.objective = GrounderObjective(self.head)
        self.features, self.targets = self._store(run_folder / "train", SEED, TRAINING_REQUESTS, Split.TRAIN)
        held_back = self._store(run_folder / "held-back", HELD_BACK_SEED, HELD_BACK_REQUESTS, Split.HELD_OUT)
        self.held_back_features, self.held_back_targets = held_back

    def _store(self, folder: Path, seed: int, count: int, split: Split) -> tuple[list[np.ndarray], list[Targets]]:
        store = FeatureStore(folder, count)
        store.build(self.model, lambda i: training_request(seed, i, split))
        features = store.load()
        log.info("preparing %d targets", count)
        targets = [
            scene_targets(self.model, training_request(seed, i, split), len(view)) for i, view in enumerate(features)
        ]
        return features, targets

    def _batch(self, features: list[np.ndarray], targets: list[Targets], indices: np.ndarray) -> Batch:
        padded, mask = pad_features([features[i] for i in indices])
        self.objective.targets = [targets[i] for i in indices]
        return {"features": padded, "mask": mask}

    def batch(self, rng: np.random.Generator) -> Batch:
        return self._batch(self.features, self.targets, rng.integers(len(self.features), size=BATCH_SIZE))

    def _held_back(self, indices: np.ndarray) -> tuple[Tensor, Tensor]:
        """Boxes (B, Q, 4) cxcywh and presence logits (B, Q) for some held-back requests, on the CPU."""
        batch = on_device_of(self.head, self._batch(self.held_back_features, self.held_back_targets, indices))
        boxes, logits, _, _ = self.head.all_queries(batch["features"], batch["mask"])
        return boxes.cpu(), logits.cpu()

    def evaluate(self) -> dict[str, float]:
        """Object recall, precision, share of centres near the true one, and scenes with all of it right."""
        found = wanted = given = near = whole = 0
        for start in range(0, len(self.held_back_features), 50):
            indices = np.arange(start, min(start + 50, len(self.held_back_features)))
            boxes, logits = self._held_back(indices)
            for b, targets in enumerate(self.objective.targets):
                hits = self._hits(boxes[b], logits[b], targets)
                kept = int((logits[b] > 0).sum())
                found, near = found + len(hits), near + sum(hits)
                wanted, given = wanted + len(targets.labels), given + kept
                whole += int(len(targets.labels) == kept == sum(hits))
        return {
            "recall": found / wanted,
            "precision": found / max(1, given),
            "near": near / wanted,
            "whole": whole / len(self.held_back_features),
        }

    def _hits(self, boxes: Tensor, logits: Tensor, targets: Targets) -> list[bool]:
        """For every object whose label was found: is its centre near?"""
        slots = self.model.profile.grounder.slots_per_label
        kept = [int(q) for q in torch.nonzero(logits > 0).flatten()]
        hits = []
        for label, box in zip(targets.labels, targets.boxes, strict=True):
            mine = [q for q in kept if q // slots == label]
            if mine:
                best = min(mine, key=lambda q: float((boxes[q, :2] - box[:2]).abs().max()))
                kept.remove(best)
                hits.append(bool((boxes[best, :2] - box[:2]).abs().max() < NEAR))
        return hits

    def picture(self, path: Path) -> None:
        """Eight held-back target scenes with the predicted boxes drawn in white."""
        boxes, logits = self._held_back(np.arange(min(8, len(self.held_back_features))))
        tiles = []
        for i in range(len(boxes)):
            scene = training_request(HELD_BACK_SEED, i, Split.HELD_OUT).target
            tile = Image.fromarray(render(scene)).resize((256, 256), Image.Resampling.NEAREST)
            draw = ImageDraw.Draw(tile)
            for q in torch.nonzero(logits[i] > 0).flatten().tolist():
                corners = [256 * v for v in cxcywh_to_xyxy(boxes[i, q]).tolist()]
                draw.rectangle(corners, outline="white", width=2)
                draw.text(
                    (corners[0] + 3, corners[1] + 1),
                    self.model.labels[q // self.model.profile.grounder.slots_per_label],
                    fill="white",
                )
            tiles.append(np.asarray(tile))
        Image.fromarray(np.concatenate(tiles, axis=1)).save(path)

    def save_weights(self, folder: Path) -> list[Path]:
        return [save_module(self.head, folder / "grounder.safetensors")]
