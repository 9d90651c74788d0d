"""The ablation's tables and figure: scores of each arm, and what each module adds, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from mgcc_benchmarks.ablation_arms import Arm, Variant
from mgcc_benchmarks.bootstrap import Tally, bootstrap, bootstrap_runs, difference_runs

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

#: Which arms are compared with which, and why.
AGAINST: Mapping[str, tuple[Arm, tuple[Arm, ...]]] = {
    "against_gill": (Arm.GILL, (Arm.GILL_LONGER, Arm.CMRM, Arm.COGM, Arm.COGM_LONGER, Arm.BOTH)),
    "against_cogm": (Arm.COGM, (Arm.COGM_LONGER, Arm.BOTH)),  # what CMRM adds when boxes are there, and what time does
    "against_longer_cogm": (Arm.COGM_LONGER, (Arm.BOTH,)),  # what CMRM adds to a GILL that has had its time
}
INTERVALS = (
    "Intervals are 95 %, percentile bootstrap. Items are resampled, and so are the seeds of an arm that has several: "
    "such an interval covers other items and another training, the latter roughly, for few seeds tell little of how "
    "far trainings differ. Intervals of an arm of one seed, of each seed alone and of the true captions cover other "
    "items only. A difference is over the items, noise and seeds that both arms share: an arm of one seed is compared "
    "with that seed of the other."
)


def runs_of(items: Sequence[ItemTallies], arm: Arm, score: str) -> dict[int | None, list[Tally]]:
    """One tally an item for each seed of the arm (None: it has no seed); empty if no item was drawn with it."""
    variants = [variant for variant in (items[0] if items else ()) if variant.arm is arm]
    return {variant.seed: [item[variant][score] for item in items] for variant in variants}


def gain(items: Sequence[ItemTallies], arm: Arm, base: Arm, score: str, *, seed: int) -> dict[str, Any]:
    """The arm's score minus the base's, over the seeds that both have: pairs of the same items, noise and seed."""
    ours, theirs = runs_of(items, arm, score), runs_of(items, base, score)
    shared = [s for s in ours if s in theirs]
    return difference_runs([ours[s] for s in shared], [theirs[s] for s in shared], seed=seed).to_json()


def summarise_arms(items: Sequence[ItemTallies], *, seed: int = 0) -> dict[str, Any]:
    """Scores of every arm over all its seeds and by seed, and what the arms have over one another (see AGAINST)."""
    scores, by_seed = {}, {}
    for arm in Arm:
        runs = {score: runs_of(items, arm, score) for score in SHOWN}
        scores[arm.value] = {s: bootstrap_runs([*runs[s].values()], seed=seed).to_json() for s in SHOWN}
        seeds = [s for s in runs[SHOWN[0]] if s is not None]
        if seeds:
            by_seed[arm.value] = {str(n): {s: bootstrap(runs[s][n], seed=seed).to_json() for s in SHOWN} for n in seeds}
    gains = {
        name: {arm.value: {s: gain(items, arm, base, s, seed=seed) for s in SHOWN} for arm in arms}
        for name, (base, arms) in AGAINST.items()
    }
    return {"scores": scores, "by_seed": by_seed, **gains, "intervals": INTERVALS}


def markdown_report(summary: Mapping[str, Any]) -> str:
    """Scores of the arms, what they have over one another, the scores of each seed, and what the intervals cover."""
    gains = {
        f"{arm} minus {base.value}": scores
        for name, (base, _) in AGAINST.items()
        for arm, scores in summary[name].items()
    }
    seeds = {f"{arm}, seed {n}": s for arm, found in summary["by_seed"].items() for n, s in found.items()}
    tables = [
        _table("arm", summary["scores"], ".3f"),
        _table("difference", gains, "+.3f"),
        _table("one seed", seeds, ".3f"),
    ]
    return "\n".join([*tables, summary["intervals"]]) + "\n"


def _table(heading: str, rows: Mapping[str, Mapping[str, Any]], form: str) -> str:
    """Rows against scores, each value with its interval, in the format `form`."""
    titles = " | ".join(score.replace("_", " ") for score in SHOWN)
    lines = [f"| {heading} | {titles} |", "| --- |" + " --- |" * len(SHOWN)]
    for name, scores in rows.items():
        cells = []
        for score in SHOWN:
            value, (low, high) = scores[score]["value"], scores[score]["ci95"]
            cells.append("not measured" if value is None else f"{value:{form}} [{low:{form}}, {high:{form}}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


_BAR_PX, _GAP_PX, _GROUP_PX, _HEIGHT_PX, _MARGIN_PX, _FONT_PX = 18, 3, 34, 220, 46, 12
_COLOURS = (
    (150, 150, 150),
    (176, 160, 190),
    (86, 150, 210),
    (236, 160, 80),
    (196, 120, 110),
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
