"""The score of a layout: all told objects found, no others, and each where the text puts it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from mgcc_ref.story.world.layout_words import is_at
from mgcc_ref.story.world.scene import Box
from mgcc_ref.train.requests import Request


@dataclass(frozen=True)
class LayoutScore:
    """Counts of one request."""

    wanted: int
    given: int
    found: int
    placed: int  # of the found, those whose fact holds

    @property
    def whole(self) -> bool:
        return self.wanted == self.given == self.placed


def score_layout(layout: Sequence[tuple[str, Box]], request: Request) -> LayoutScore:
    """Match `layout` to the target's objects by label, nearest first, and check every object's fact.

    A relation is checked against its anchor's box in the layout; without the anchor, the relation is wrong.
    """
    objects = request.target.objects
    pairs = _matches(layout, [(o.label, o.box) for o in objects])
    boxes = [layout[pairs[i]][1] if i in pairs else (-1.0, -1.0, -1.0, -1.0) for i in range(len(objects))]
    placed = 0
    for fact in request.facts:
        if fact.index in pairs and all(anchor in pairs for anchor in fact.anchors):
            placed += is_at(boxes[fact.index], fact.with_anchor_boxes(boxes))
    return LayoutScore(len(objects), len(layout), len(pairs), placed)


def total(scores: Sequence[LayoutScore]) -> dict[str, float]:
    """Recall, precision, share of wanted objects in their place, and share of layouts without a fault."""
    wanted, given = sum(s.wanted for s in scores), sum(s.given for s in scores)
    found, placed = sum(s.found for s in scores), sum(s.placed for s in scores)
    return {
        "recall": found / wanted,
        "precision": found / max(1, given),
        "placed": placed / wanted,
        "whole": float(np.mean([s.whole for s in scores])),
    }


def _matches(layout: Sequence[tuple[str, Box]], wanted: Sequence[tuple[str, Box]]) -> dict[int, int]:
    """Wanted object's index -> index of its match in `layout`, of the same label."""
    if not layout or not wanted:
        return {}
    cost = np.full((len(wanted), len(layout)), 1e3)
    for i, (label, box) in enumerate(wanted):
        for j, (given, there) in enumerate(layout):
            if label == given:
                cost[i, j] = np.abs(np.subtract(box, there)).sum()
    rows, columns = linear_sum_assignment(cost)
    return {int(i): int(j) for i, j in zip(rows, columns, strict=True) if cost[i, j] < 1e3}
