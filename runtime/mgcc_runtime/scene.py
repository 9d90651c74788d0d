"""What a picture is drawn from besides its noise: kept, it can be drawn again otherwise, with nothing read again.

Boxes have ids in it. A box that comes back under its id and its label keeps its phrase embedding: that of a thing which
the grounder found comes from the whole conversation, and its label ("object", or one word) would not give it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.contract import Dimensions
from mgcc_runtime.layout import Box, Layout
from mgcc_runtime.request import Request
from mgcc_runtime.stages import Floats
from mgcc_runtime.text.writing import Written

Embed: TypeAlias = "Callable[[str], NDArray[np.float32]]"  # label -> phrase embedding (D_p,)

_ROUNDED_PX = 0.05  # boxes are written out in tenths of a pixel: one that comes back so has not moved


@dataclass(frozen=True, eq=False)
class Place:
    """A box as the UNet was told of it."""

    box: Box
    slot: int  # of the layout's N
    edges: NDArray[np.float32]  # (4,) xyxy in [0, 1]
    phrase: NDArray[np.float32]  # (D_p,)


@dataclass(frozen=True, eq=False)
class Scene:
    """Of one picture; `Pipeline.redraw` takes it. It holds no cache and no picture: 250 KB for `story`."""

    bundle: str  # its digest
    request: Request
    conditioning: Floats  # (1, N_c, D_c)
    layout: Layout  # its items have ids
    places: Mapping[str, Place]  # by id: every box that this picture, or one that it was redrawn from, has had
    written: Written

    @classmethod
    def first(cls, bundle: str, request: Request, conditioning: Floats, layout: Layout, written: Written) -> Scene:
        """Of a layout whose items have ids, in the order of their slots."""
        slots = np.flatnonzero(layout.box_mask[0])
        found = {
            box.id: Place(box, int(slot), layout.boxes[0, slot], layout.phrase_embeddings[0, slot])
            for box, slot in zip(layout.items, slots, strict=True)
        }
        if isinstance(request.boxes, tuple):
            request = replace(request, boxes=layout.items)
        return cls(bundle, request, conditioning, layout, found, written)

    @property
    def nbytes(self) -> int:
        phrases = sum(place.phrase.nbytes for place in self.places.values())
        return self.conditioning.nbytes + self.layout.phrase_embeddings.nbytes + phrases

    def redrawn(self, request: Request, embed: Embed, d: Dimensions) -> Scene:
        """The scene of another request: the same, unless that has boxes of its own. `embed` gives a label's phrase."""
        if request.boxes is self.request.boxes:
            return replace(self, request=request)
        if isinstance(request.boxes, tuple):
            return self._with_boxes(request, request.boxes, embed, d)
        return replace(self, request=request, layout=Layout.empty(d))

    @property
    def labels(self) -> Mapping[str, str]:
        """Of each box by its id: what is drawn in it is known without a label list."""
        return {name: place.box.label for name, place in self.places.items()}

    def _kept(self, box: Box) -> Place | None:
        place = self.places.get(box.id)
        return place if place is not None and place.box.label == box.label else None

    def _with_boxes(self, request: Request, boxes: tuple[Box, ...], embed: Embed, d: Dimensions) -> Scene:
        named = with_ids(boxes, self.places)
        layout, places, free = Layout.empty(d), dict(self.places), set(range(d.objects))
        # a thing stays in its slot, so that of unmoved boxes exactly the same picture comes
        slots: dict[str, int] = {}
        for box in named:
            if (kept := self._kept(box)) is not None and kept.slot in free:
                slots[box.id] = kept.slot
                free.remove(kept.slot)
        for box in named:
            slot = slots[box.id] if box.id in slots else min(free)
            free.discard(slot)
            kept = self._kept(box)
            edges = (np.array(box.xyxy) / d.image_px).astype(np.float32)
            if kept is not None and np.abs(np.subtract(kept.box.xyxy, box.xyxy)).max() <= _ROUNDED_PX:
                edges = kept.edges
            phrase = embed(box.label) if kept is None else kept.phrase
            layout.boxes[0, slot], layout.box_mask[0, slot], layout.phrase_embeddings[0, slot] = edges, 1, phrase
            places[box.id] = Place(box, slot, edges, phrase)
        told = replace(layout, items=named)
        return replace(self, request=replace(request, boxes=named), layout=told, places=places)


def with_ids(boxes: Sequence[Box], taken: Mapping[str, object] | None = None) -> tuple[Box, ...]:
    """The boxes with an id each: their own, or the first numbers that neither they nor `taken` have."""
    used = {box.id for box in boxes} | {*(taken or ())}
    free = (str(number) for number in count(1) if str(number) not in used)
    return tuple(box if box.id else replace(box, id=next(free)) for box in boxes)
