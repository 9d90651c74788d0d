"""How well drawn each object is inside its own box, wherever the box is: class by template, and sprite PSNR."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mgcc_benchmarks.bootstrap import Tally
from mgcc_benchmarks.storybench.reader import Placing, judge, soft_backdrop
from mgcc_benchmarks.storybench.templates import COARSE_SIZES_PX, REDUCTION, Floats, match_maps, soften, template_bank
from mgcc_ref.story.world.scene import IMAGE_PX, MAX_OBJECT_PX, MIN_OBJECT_PX, Background, Box, backdrop
from mgcc_ref.story.world.sprites import LABELS, sprite

LabelledBox = tuple[str, Box]

_CENTRE_SLACK_PX = 4  # a template's centre may lie this far from the box's
_SIZE_SLACK = 0.15  # and its longer side differ by this part
_FINALISTS = 3  # labels compared again at full resolution
_SHIFT_PX = 2
_MAX_PSNR_DB = 60.0  # of a pixel-perfect sprite


def score_crispness(picture: Floats, boxes: Sequence[LabelledBox], background: Background) -> dict[str, Tally]:
    """template_top1 and sprite_psnr_db over the boxes with which the picture was drawn; unknown labels are left out."""
    known = [(label, box) for label, box in boxes if label in LABELS]
    soft, behind = soften(picture), soft_backdrop(background)
    maps = match_maps(soft)
    right = [best_label(maps, soft, behind, box) == label for label, box in known]
    psnr = [sprite_psnr_db(picture, backdrop(background), label, box) for label, box in known]
    return {"template_top1": Tally(sum(right), len(right)), "sprite_psnr_db": Tally(sum(psnr), len(psnr))}


def best_label(maps: Floats, soft: Floats, behind: Floats, box: Box) -> str:
    """The label whose template matches best at the box. `maps` from `match_maps`, `soft` and `behind` blurred."""
    bank, sizes = template_bank(), len(COARSE_SIZES_PX)
    found: list[tuple[float, Placing]] = []
    for i, label in enumerate(bank.labels):
        best = (-1.0, _placed(label, COARSE_SIZES_PX[0], box))
        for s, side in enumerate(COARSE_SIZES_PX):
            if abs(side / _long_side_px(box) - 1) > _SIZE_SLACK:
                continue
            there = _placed(label, side, box)
            reach = _CENTRE_SLACK_PX // REDUCTION
            top, left = there.top // REDUCTION, there.left // REDUCTION
            y, x = max(0, top - reach), max(0, left - reach)
            near = maps[i * sizes + s, y : top + reach + 1, x : left + reach + 1]
            if near.size and float(near.max()) > best[0]:
                dy, dx = np.unravel_index(int(near.argmax()), near.shape)
                best = (float(near.max()), Placing(label, side, (x + int(dx)) * REDUCTION, (y + int(dy)) * REDUCTION))
        found.append(best)
    found.sort(key=lambda pair: -pair[0])
    finals = ((max(judge(soft, behind, near).match for near in _around(p)), p.label) for _, p in found[:_FINALISTS])
    return max(finals)[1]


def sprite_psnr_db(picture: Floats, behind: Floats, label: str, box: Box) -> float:
    """PSNR of the true sprite over its own silhouette, the best of small shifts; at the box's size."""
    side = min(max(_long_side_px(box), MIN_OBJECT_PX // 2), MAX_OBJECT_PX + MIN_OBJECT_PX)
    error = min(_error(picture, behind, near) for near in _around(_placed(label, side, box), _SHIFT_PX))
    return float(min(_MAX_PSNR_DB, -10 * np.log10(max(error, 1e-9))))


def _error(picture: Floats, behind: Floats, placing: Placing) -> float:
    """Mean squared error, each pixel weighted by the sprite's opacity; 1 if the sprite leaves the picture."""
    art = sprite(placing.label, placing.side)
    height, width = art.shape[:2]
    if min(placing.left, placing.top) < 0 or placing.left + width > IMAGE_PX or placing.top + height > IMAGE_PX:
        return 1.0
    region = np.s_[placing.top : placing.top + height, placing.left : placing.left + width]
    alpha = art[..., 3:]
    error = picture[region] - (art[..., :3] + (1 - alpha) * behind[region])
    return float((alpha * error * error).sum() / (3 * alpha.sum()))


def _long_side_px(box: Box) -> int:
    return max(1, round(max(box[2] - box[0], box[3] - box[1]) * IMAGE_PX))


def _placed(label: str, side: int, box: Box) -> Placing:
    """The sprite with its centre in the box's, moved inwards where it would leave the picture."""
    height, width = sprite(label, side).shape[:2]
    left = round((box[0] + box[2]) / 2 * IMAGE_PX - width / 2)
    top = round((box[1] + box[3]) / 2 * IMAGE_PX - height / 2)
    return Placing(label, side, max(0, min(left, IMAGE_PX - width)), max(0, min(top, IMAGE_PX - height)))


def _around(placing: Placing, reach: int = 1) -> Iterable[Placing]:
    shifts = range(-reach, reach + 1)
    return (placing.moved(dx, dy) for dx in shifts for dy in shifts)
