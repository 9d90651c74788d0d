"""Where objects stand: the grounder's proposal or the user's boxes, as the UNet wants them."""

from __future__ import annotations

import difflib
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.box_placement import settle, to_whole_pixels
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.bundle.manifest import LayoutRules
from mgcc_runtime.contract import BARE_VIEWS, BoxEdges, Dimensions, pointed_word
from mgcc_runtime.engines import Array
from mgcc_runtime.errors import LayoutError
from mgcc_runtime.names import LABEL_EMBEDDINGS
from mgcc_runtime.values import is_number, shown

_LONGEST_ID = 64
_SLACK_PX = 0.5  # boxes written out by us are rounded to tenths of a pixel


class BoxMode(str, enum.Enum):
    """Where boxes come from when the user gives none."""

    AUTO = "auto"  # the grounder
    NONE = "none"  # no boxes at all: the bare background


@dataclass(frozen=True)
class Box:
    """An object of the output image."""

    label: str
    xyxy: tuple[float, float, float, float]  # pixels of the output image: left, top, right, bottom
    score: float = 1.0  # presence probability; 1 where a user gave the box
    id: str = field(default="", compare=False)  # of a picture's boxes each has another; "": not given one yet

    def to_json(self) -> dict[str, Any]:
        named = {"id": self.id} if self.id else {}
        return {**named, "label": self.label, "xyxy": [round(v, 1) for v in self.xyxy], "score": round(self.score, 4)}


@dataclass(frozen=True)
class Layout:
    """The UNet's grounding inputs and the same for people."""

    items: tuple[Box, ...]
    boxes: NDArray[np.float32]  # (1, N, 4) xyxy in [0, 1]
    box_mask: NDArray[np.float32]  # (1, N)
    phrase_embeddings: NDArray[np.float32]  # (1, N, D_p)

    @classmethod
    def empty(cls, d: Dimensions) -> Layout:
        n = d.objects
        return cls(
            (), np.zeros((1, n, 4), np.float32), np.zeros((1, n), np.float32), np.zeros((1, n, d.phrase), np.float32)
        )


def bare_views(phrase: NDArray[np.float32], d: Dimensions) -> tuple[Layout, ...]:
    """What a UNet with a layout map is told, view by view, of a picture without things; `phrase` (D_p,) is any label's.

    `joined` makes one prediction of those of all views.
    """
    boxes = [tuple(edge * d.image_px for edge in view.box) for view in BARE_VIEWS]
    return tuple(layout_from_boxes([Box("", (x1, y1, x2, y2))], [phrase], d) for x1, y1, x2, y2 in boxes)


def joined(predictions: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Predictions (1, C, h, w), one for each of `bare_views` -> that of the bare picture."""
    parts = [found[..., view.of(found.shape[-1])] for view, found in zip(BARE_VIEWS, predictions, strict=True)]
    return np.concatenate(parts, axis=-1)


class Placed(Protocol):
    """An object that a grounder found by its name."""

    @property
    def label(self) -> str: ...
    @property
    def edges(self) -> tuple[float, float, float, float]:
        """xyxy in [0, 1]."""

    @property
    def score(self) -> float: ...


class Labels:
    """A bundle's list of labels with their phrase embeddings; empty for an open vocabulary."""

    def __init__(self, bundle: Bundle) -> None:
        d = bundle.manifest.dimensions
        self.names = bundle.labels()
        self.embeddings: NDArray[np.float32] = np.zeros((0, d.phrase), np.float32)
        if self.names:
            self.embeddings = np.array(bundle.array(LABEL_EMBEDDINGS, (len(self.names), d.phrase)))
        norms = np.linalg.norm(self.embeddings, axis=1, keepdims=True)
        self._unit = self.embeddings / np.maximum(norms, 1e-12)

    def nearest(self, embedding: NDArray[np.float32]) -> str:
        """The label whose embedding has the highest cosine with this one (D_p,)."""
        return self.names[int(np.argmax(self._unit @ embedding))]

    def suggestion(self, label: str) -> str:
        """The end of an error's sentence about an unknown label."""
        folded = {name.lower(): name for name in self.names}
        close = difflib.get_close_matches(label.lower(), list(folded), n=3, cutoff=0.5)
        if close:
            return f"nearest: {', '.join(folded[name] for name in close)}"
        return f"it has {', '.join(self.names[:40])}{'...' if len(self.names) > 40 else ''}"


def layout_from_grounder(
    grounder: Mapping[str, Array], words: Sequence[str], labels: Labels, d: Dimensions, rules: LayoutRules
) -> Layout:
    """Keep the objects that are present. `grounder` are the stage's outputs, `words` the prompt's by position."""
    presence = grounder["presence"][0]  # (N,)
    kept = presence >= rules.presence_threshold
    xyxy = np.clip(grounder["boxes"][0], 0, 1)
    xyxy = _placed(xyxy, kept, d, rules)
    items = []
    for i in np.flatnonzero(kept):
        left, top, right, bottom = (float(v) * d.image_px for v in xyxy[i])
        label = labels.nearest(grounder["phrase_embeddings"][0, i]) if labels.names else ""
        label = label or pointed_word(grounder["pointers"][0, i].tolist(), words)
        items.append(Box(label, (left, top, right, bottom), float(presence[i])))
    shown = kept[None, :, None]
    return Layout(
        tuple(items),
        np.where(shown, xyxy[None], 0).astype(np.float32),
        kept[None].astype(np.float32),
        np.where(shown, grounder["phrase_embeddings"], 0).astype(np.float32),
    )


def placed_boxes(objects: Sequence[Placed], d: Dimensions, rules: LayoutRules) -> tuple[Box, ...]:
    """Boxes of objects that were found with edges in [0, 1], in pixels, where the rules have them drawn."""
    xyxy = np.array([item.edges for item in objects], np.float32).reshape(-1, 4)
    xyxy = _placed(xyxy, np.ones(len(objects), np.bool_), d, rules)
    pixels = [tuple(float(v) * d.image_px for v in edges) for edges in xyxy]
    return tuple(
        Box(item.label, (left, top, right, bottom), item.score)
        for item, (left, top, right, bottom) in zip(objects, pixels, strict=True)
    )


def _placed(
    xyxy: NDArray[np.float32], kept: NDArray[np.bool_], d: Dimensions, rules: LayoutRules
) -> NDArray[np.float32]:
    """Boxes (N, 4) where they are drawn; those that are `kept` (N,) make room for each other."""
    if rules.max_overlap is not None:
        xyxy = settle(xyxy, kept, rules.max_overlap)
    if rules.box_edges is BoxEdges.WHOLE_PIXELS:
        xyxy = to_whole_pixels(xyxy, d.image_px)
    return xyxy


def parse_boxes(values: object, image_px: int) -> tuple[Box, ...]:
    """Boxes given as a list of `Box` or of {"label", "xyxy"}, which may have "score" and "id"; LayoutError if not.

    In pixels of the output image. No two have one id.
    """
    if not isinstance(values, Sequence) or isinstance(values, str | bytes):
        raise LayoutError(
            f'boxes are {type(values).__name__}, expected a list of {{"label": ..., "xyxy": [...]}}; give a list'
        )
    boxes = tuple(_parse_box(value, number, image_px) for number, value in enumerate(values, 1))
    ids = [box.id for box in boxes if box.id]
    if twice := next((i for i in ids if ids.count(i) > 1), ""):
        raise LayoutError(f"two boxes have the id {shown(twice)}, expected one each; give the second another or none")
    return boxes


def _parse_box(value: object, number: int, image_px: int) -> Box:
    if isinstance(value, Box):
        value = {"label": value.label, "xyxy": value.xyxy, "score": value.score, "id": value.id}
    if not isinstance(value, Mapping) or not isinstance(value.get("label"), str) or not value["label"].strip():
        raise LayoutError(f'box {number} has no label, expected {{"label": "cat", "xyxy": [x1, y1, x2, y2]}}; add one')
    label, xyxy = value["label"].strip(), value.get("xyxy")
    corners = tuple(xyxy) if isinstance(xyxy, Sequence | np.ndarray) and len(np.shape(xyxy)) == 1 else ()
    if len(corners) != 4 or not all(is_number(v) for v in corners):
        raise LayoutError(f"box {number} ({label}) has xyxy {shown(xyxy)}, expected four numbers in pixels; correct it")
    left, top, right, bottom = (float(v) for v in corners)
    if min(left, top) < -_SLACK_PX or max(right, bottom) > image_px + _SLACK_PX:
        raise LayoutError(
            f"box {number} ({label}) is {[left, top, right, bottom]}, outside the image of {image_px}x{image_px} "
            f"pixels; keep all four numbers between 0 and {image_px}"
        )
    if left >= right or top >= bottom:
        raise LayoutError(
            f"box {number} ({label}) is {[left, top, right, bottom]}, which has no area; "
            "give left, top, right, bottom with left < right and top < bottom"
        )
    score = value.get("score", 1.0)
    if not is_number(score) or not 0 <= score <= 1:
        raise LayoutError(
            f"box {number} ({label}) has score {shown(score)}, expected a number from 0 to 1; correct it or leave it "
            "out"
        )
    name = value.get("id", "")
    if not isinstance(name, str) or len(name) > _LONGEST_ID:
        raise LayoutError(
            f"box {number} ({label}) has id {shown(name)}, expected a text of at most {_LONGEST_ID} characters; "
            "correct it or leave it out"
        )
    inside = (max(left, 0.0), max(top, 0.0), min(right, float(image_px)), min(bottom, float(image_px)))
    return Box(label, inside, float(score), name)


def layout_from_boxes(items: Sequence[Box], embeddings: Sequence[NDArray[np.float32]], d: Dimensions) -> Layout:
    """The layout of boxes given by hand; `embeddings` are the phrase embeddings (D_p,) of their labels."""
    layout = Layout.empty(d)
    for i, (item, embedding) in enumerate(zip(items, embeddings, strict=True)):
        layout.boxes[0, i] = np.array(item.xyxy) / d.image_px
        layout.box_mask[0, i] = 1
        layout.phrase_embeddings[0, i] = embedding
    return Layout(tuple(items), layout.boxes, layout.box_mask, layout.phrase_embeddings)
