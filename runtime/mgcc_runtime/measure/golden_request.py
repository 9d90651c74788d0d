"""Plays a bundle's golden request and holds the outcome against the reference's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from mgcc_runtime.contract import BoxEdges
from mgcc_runtime.layout import Box, BoxMode
from mgcc_runtime.measure.golden import RequestGolden
from mgcc_runtime.measure.similarity import psnr_db
from mgcc_runtime.pipeline import Pipeline
from mgcc_runtime.results import Result

#: A box on whole pixels moves so far at most where place and size both round the other way.
TURNED_BOX_PX = 2.0


@dataclass(frozen=True)
class PlayedRequest:
    """What came of it, and how far that is from the reference's."""

    result: Result
    labels_equal: bool
    box_error_px: float  # the largest of all edges; the picture's side where the labels differ
    psnr_db: float  # of the picture; infinite where it is equal
    redrawn: bool  # whether that picture had to be drawn with the reference's boxes


def play_request(pipeline: Pipeline, golden: RequestGolden) -> PlayedRequest:
    """Run the golden request.

    Where boxes stand on whole pixels, a tenth of a pixel can turn an edge to the next one, and the thing in that box is
    drawn beside where the reference has it. Then the picture is drawn once more with the reference's boxes: that they
    turned is told by `box_error_px`, and the rest of the pipeline by the picture.
    """
    draw = partial(pipeline.generate, golden.parts, seed=golden.seed, steps=golden.steps, guidance=golden.guidance)
    places = zip(golden.labels, golden.boxes.tolist(), strict=True)
    boxes = [Box(label, (left, top, right, bottom)) for label, (left, top, right, bottom) in places]
    result = draw(words=golden.words, boxes=boxes if golden.given else BoxMode.AUTO)
    manifest = pipeline.bundle.manifest
    labels_equal = tuple(box.label for box in result.boxes) == golden.labels
    error_px = float(manifest.dimensions.image_px)
    if labels_equal:
        found = np.array([box.xyxy for box in result.boxes], np.float64).reshape(-1, 4)
        error_px = float(np.abs(found - golden.boxes).max(initial=0.0))
    decibels, redrawn = psnr_db(np.asarray(result.image), golden.image), False
    if manifest.layout.box_edges is BoxEdges.WHOLE_PIXELS and labels_equal and 0.5 < error_px <= TURNED_BOX_PX:
        better = psnr_db(np.asarray(draw(boxes=boxes).image), golden.image)
        decibels, redrawn = max(decibels, better), better > decibels
    return PlayedRequest(result, labels_equal, error_px, decibels, redrawn)
