"""The painters of StoryBench's pictures: a bundle through the runtime, the PyTorch reference, or the truth itself."""

from __future__ import annotations

import enum
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from PIL import Image

from mgcc_benchmarks.storybench.crispness import LabelledBox
from mgcc_ref.story.bench import AnyItem
from mgcc_ref.story.captions import canonical_caption
from mgcc_ref.story.world.scene import Scene, render
from mgcc_runtime import Box, BoxMode, Pipeline
from mgcc_runtime.bundle.manifest import Manifest
from mgcc_runtime.names import GOLDEN

if TYPE_CHECKING:
    from mgcc_ref.model import MgccModel


class Oracle(enum.Enum):
    """The truth that a painter is given beside the item's parts."""

    NOTHING = "nothing"
    BOXES = "boxes"  # the true scene's labels and boxes
    BOXES_AND_CAPTION = "boxes+caption"  # and its full caption, so that the drawing alone is judged


@dataclass(frozen=True)
class Drawn:
    """One item's picture; `boxes` in [0, 1] are those that it was drawn from."""

    image: Image.Image
    boxes: tuple[LabelledBox, ...]
    text: str | None  # None: no text was asked for


class Painter(Protocol):
    @property
    def identity(self) -> str:
        """Identifies the painter, so that the scores of two are never mixed."""

    def draw(self, item: AnyItem, *, seed: int, words: int) -> Drawn: ...


def true_boxes(scene: Scene) -> tuple[LabelledBox, ...]:
    return tuple((thing.label, thing.box) for thing in scene.objects)


def _asked(oracle: Oracle, steps: int | None) -> str:
    return f"oracle {oracle.value}" + (f", {steps} steps" if steps is not None else "")


def bundle_identity(manifest: Manifest, oracle: Oracle, steps: int | None) -> str:
    """A digest of all that pictures depend on: the same if the same weights and graphs are built anew.

    The manifest holds every file's hash. Its build time, memory estimate and golden answers are left out.
    """
    told = manifest.to_json()
    for name in ("built_at", "memory_estimate_bytes"):
        del told[name]
    told["files"] = {name: entry for name, entry in told["files"].items() if not name.startswith(GOLDEN)}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return f"bundle {digest[:16]}, {_asked(oracle, steps)}"


def weights_digest(model: MgccModel) -> str:
    """A digest of a reference's weights, the same on every machine; a sum would depend on rounding."""
    import torch

    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


class BundlePainter:
    """A bundle, through the public API as a user would run it. `steps`: of denoising, None for the bundle's default."""

    def __init__(self, pipeline: Pipeline, oracle: Oracle, steps: int | None = None) -> None:
        self.pipeline, self.oracle, self.steps = pipeline, oracle, steps
        self.identity = bundle_identity(pipeline.bundle.manifest, oracle, steps)

    def draw(self, item: AnyItem, *, seed: int, words: int) -> Drawn:
        side = self.pipeline.bundle.manifest.dimensions.image_px
        boxes: BoxMode | list[Box] = BoxMode.AUTO
        if self.oracle is Oracle.BOXES:
            boxes = [
                Box(label, (x1 * side, y1 * side, x2 * side, y2 * side))
                for label, (x1, y1, x2, y2) in true_boxes(item.target)
            ]
        result = self.pipeline.generate(item.inputs(), seed=seed, steps=self.steps, words=words, boxes=boxes)
        found = []
        for box in result.boxes:
            x1, y1, x2, y2 = (v / side for v in box.xyxy)
            found.append((box.label, (x1, y1, x2, y2)))
        return Drawn(result.image, tuple(found), result.text if words else None)


class ReferencePainter:
    """`mgcc_ref` in eager PyTorch, of a profile and a folder of weights."""

    def __init__(self, profile: str, weights: Path | str | None, oracle: Oracle, steps: int | None = None) -> None:
        from mgcc_benchmarks.storybench.captioned import CaptionedPipeline
        from mgcc_ref.model import load_model
        from mgcc_ref.pipeline import ReferencePipeline

        self.oracle, self.steps = oracle, steps
        folder: Path | Literal["random"] | None = None
        if weights is not None:
            folder = "random" if weights == "random" else Path(weights)
        model = load_model(profile, folder)
        self._captioned = CaptionedPipeline(model) if oracle is Oracle.BOXES_AND_CAPTION else None
        self.pipeline = self._captioned or ReferencePipeline(model)
        self.identity = f"reference {profile} {weights_digest(model)}, {_asked(oracle, steps)}"

    def draw(self, item: AnyItem, *, seed: int, words: int) -> Drawn:
        from mgcc_ref.pipeline import GroundedObject

        boxes = None
        if self._captioned is not None:
            self._captioned.caption = canonical_caption(item.target)
        if self.oracle is not Oracle.NOTHING:
            boxes = [GroundedObject(label, box, 1.0) for label, box in true_boxes(item.target)]
        result = self.pipeline.generate(item.inputs(), seed=seed, steps=self.steps, words=words, boxes=boxes)
        found = tuple((thing.label, thing.box) for thing in result.layout.objects)
        return Drawn(result.image, found, result.text.text if words else None)


class TruthPainter:
    """The true picture, which gives the best scores that the reader allows."""

    identity = "truth"

    def draw(self, item: AnyItem, *, seed: int, words: int) -> Drawn:
        return Drawn(Image.fromarray(render(item.target)), true_boxes(item.target), None)
