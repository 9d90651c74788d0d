"""The ablation's table and figure: scores of each arm, and what each module adds, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mgcc_benchmarks.ablation_arms import CEILINGS, Arm, Variant
from mgcc_benchmarks.bootstrap import DIGITS, NOTHING, RESAMPLES, Tally, bootstrap

SHOWN = (
    "object_recall",
    "object_precision",
    "position_accuracy",
    "background_accuracy",
    "whole_scene",
    "clip_similarity",
)
#: What the paper (arXiv 2405.18304) reports on VIST and VisDial; not comparable with StoryBench, only in direction.
PUBLISHED = {"stories": {"GILL": 0.641, "MGCC": 0.652}, "dialogues": {"GILL": 0.645, "MGCC": 0.660}}

ItemTallies = Mapping[Variant, Mapping[str, Tally]]


def pooled(items: Sequence[ItemTallies], arm: Arm, score: str) -> list[Tally]:
    """One tally an item, the seeds added up: seeds share the items, so an item is what is drawn anew."""
    found = []
    for item in items:
        parts = [tallies[score] for variant, tallies in item.items() if variant.arm is arm]
        found.append(Tally(sum(t.right for t in parts), sum(t.counted for t in parts)) if parts else NOTHING)
    return found


def difference(ours: Sequence[Tally], base: Sequence[Tally], *, seed: int) -> dict[str, Any]:
    """Ours minus base with its 95 % interval; both are resampled together, for they draw the same items."""
    columns = np.array([(a.right, a.counted, b.right, b.counted) for a, b in zip(ours, base, strict=True)], np.float64)
    if columns[:, 1].sum() <= 0 or columns[:, 3].sum() <= 0:
        return {"value": None, "ci95": [None, None]}
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(columns), np.full(len(columns), 1 / len(columns)), size=RESAMPLES) @ columns
    drawn = drawn[(drawn[:, 1] > 0) & (drawn[:, 3] > 0)]
    low, high = np.percentile(drawn[:, 0] / drawn[:, 1] - drawn[:, 2] / drawn[:, 3], (2.5, 97.5))
    total = columns.sum(axis=0)
    value = total[0] / total[1] - total[2] / total[3]
    return {"value": round(float(value), DIGITS), "ci95": [round(float(low), DIGITS), round(float(high), DIGITS)]}


def summarise_arms(items: Sequence[ItemTallies], *, seed: int = 0) -> dict[str, Any]:
    """Scores of every arm, and each arm against GILL."""
    scores = {a.value: {s: bootstrap(pooled(items, a, s), seed=seed).to_json() for s in SHOWN} for a in Arm}
    base = {s: pooled(items, Arm.GILL, s) for s in SHOWN}
    gains = {
        a.value: {s: difference(pooled(items, a, s), base[s], seed=seed) for s in SHOWN}
        for a in Arm
        if a is not Arm.GILL and a not in CEILINGS
    }
    return {"scores": scores, "against_gill": gains}


def markdown_table(summary: Mapping[str, Any]) -> str:
    """Arms against scores; the interval under each value."""
    lines = ["| arm | " + " | ".join(s.replace("_", " ") for s in SHOWN) + " |", "| --- |" + " --- |" * len(SHOWN)]
    for arm, scores in summary["scores"].items():
        cells = []
        for score in SHOWN:
            value, (low, high) = scores[score]["value"], scores[score]["ci95"]
            cells.append("not measured" if value is None else f"{value:.3f} [{low:.3f}, {high:.3f}]")
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


_BAR_PX, _GAP_PX, _GROUP_PX, _HEIGHT_PX, _MARGIN_PX, _FONT_PX = 18, 3, 34, 220, 46, 12
_COLOURS = (
    (150, 150, 150),
    (176, 160, 190),
    (86, 150, 210),
    (236, 160, 80),
    (70, 150, 90),
    (225, 225, 225),
    (205, 205, 205),
)
_INK = (30, 30, 30)


def chart(summary: Mapping[str, Any], title: str) -> Image.Image:
    """A group of bars a score, a bar an arm, whiskers for the 95 % interval."""
    arms = list(summary["scores"])
    group = len(arms) * (_BAR_PX + _GAP_PX) + _GROUP_PX
    size = (2 * _MARGIN_PX + group * len(SHOWN), 3 * _MARGIN_PX + _HEIGHT_PX + 18 * len(arms))
    image = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT_PX)
    draw.text((_MARGIN_PX, 14), title, fill=_INK, font=font)
    floor = _MARGIN_PX + _HEIGHT_PX
    for tenth in range(0, 11, 2):
        y = floor - tenth / 10 * _HEIGHT_PX
        draw.line((_MARGIN_PX, y, size[0] - _MARGIN_PX, y), fill=(230, 230, 230))
        draw.text((14, y - 7), f"{tenth / 10:.1f}", fill=_INK, font=font)
    for g, score in enumerate(SHOWN):
        left = _MARGIN_PX + g * group + _GROUP_PX // 2
        for a, arm in enumerate(arms):
            value, (low, high) = summary["scores"][arm][score]["value"], summary["scores"][arm][score]["ci95"]
            if value is None:
                continue
            x = left + a * (_BAR_PX + _GAP_PX)
            draw.rectangle((x, floor - max(value, 0) * _HEIGHT_PX, x + _BAR_PX, floor), fill=_COLOURS[a], outline=_INK)
            middle = x + _BAR_PX / 2
            draw.line((middle, floor - max(low, 0) * _HEIGHT_PX, middle, floor - high * _HEIGHT_PX), fill=_INK, width=2)
        draw.text((left, floor + 8), score.replace("_", " "), fill=_INK, font=font)
    for a, arm in enumerate(arms):
        y = floor + _MARGIN_PX + 18 * a
        draw.rectangle((_MARGIN_PX, y, _MARGIN_PX + 14, y + 12), fill=_COLOURS[a], outline=_INK)
        draw.text((_MARGIN_PX + 22, y - 1), arm, fill=_INK, font=font)
    return image
