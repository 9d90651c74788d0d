"""The right answers to a request: each thing's box or region, its phrase, and the positions that mention it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mgcc_ref.model import MgccModel
from mgcc_ref.train.loop import Batch
from mgcc_ref.train.mentions import mention_positions
from mgcc_ref.train.requests import Request

#: A batch's targets, by name.
TARGETS = ("boxes", "regions", "phrases", "labels", "mentions")


@dataclass(frozen=True)
class Targets:
    """One scene's objects: boxes (K, 4) cxcywh, phrase embeddings (K, D_p), label indices, pointer positions.

    `regions` (K, 4) xyxy: every centre in it is right, and so is every size; of no area where only the box is.
    """

    boxes: Tensor
    regions: Tensor
    phrases: Tensor
    labels: tuple[int, ...]
    mentions: tuple[tuple[int, ...], ...]  # counted from the end of the context (-1 is the last position)

    @staticmethod
    def packed(every: Sequence[Targets]) -> dict[str, Tensor]:
        """A batch's targets as tensors, by `TARGETS`: (B, K, 4) twice, (B, K, D_p), (B, K) and (B, K, M).

        Padding is -1 in labels and 0 in mentions, whose values are negative.
        """
        objects = max(len(t.labels) for t in every)
        most = max((len(m) for t in every for m in t.mentions), default=0)
        boxes, regions = torch.zeros(2, len(every), objects, 4)
        phrases = torch.zeros(len(every), objects, every[0].phrases.shape[1])
        labels = torch.full((len(every), objects), -1, dtype=torch.int64)
        mentions = torch.zeros(len(every), objects, most, dtype=torch.int64)
        for b, one in enumerate(every):
            count = len(one.labels)
            boxes[b, :count], phrases[b, :count], labels[b, :count] = one.boxes, one.phrases, torch.tensor(one.labels)
            regions[b, :count] = one.regions
            for k, positions in enumerate(one.mentions):
                mentions[b, k, : len(positions)] = torch.tensor(positions)
        return {"boxes": boxes, "regions": regions, "phrases": phrases, "labels": labels, "mentions": mentions}

    @staticmethod
    def unpacked(batch: Batch) -> list[Targets]:
        """The targets of a packed batch, on the batch's device."""
        found = []
        every = zip(batch["labels"].tolist(), batch["mentions"].tolist(), strict=True)
        for b, (labels, mentions) in enumerate(every):
            count = sum(label >= 0 for label in labels)
            told = tuple(tuple(p for p in positions if p) for positions in mentions[:count])
            boxes, regions, phrases = (batch[name][b, :count] for name in ("boxes", "regions", "phrases"))
            found.append(Targets(boxes, regions, phrases, tuple(labels[:count]), told))
        return found


def scene_targets(model: MgccModel, request: Request, length: int, phrases: Tensor) -> Targets:
    """Targets of a request of `length` positions; `phrases` (L, D_p) are the label list's embeddings."""
    objects = request.target.objects
    mentions = mention_positions(model, request, {o.label for o in objects})
    labels = tuple(model.labels.index(o.label) for o in objects)
    corners = torch.tensor([o.box for o in objects]).view(-1, 4)
    centre, size = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
    allowed = request.regions or (None,) * len(objects)
    return Targets(
        boxes=torch.cat([centre, size], dim=1),
        regions=torch.tensor([region or (0.0,) * 4 for region in allowed]).view(-1, 4),
        phrases=phrases[list(labels)],
        labels=labels,
        mentions=tuple(tuple(p - length for p in mentions.get(o.label, ())) for o in objects),
    )
