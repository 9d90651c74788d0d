"""The golden data of a whole bundle: a request, and a layout where the language model writes such."""

from __future__ import annotations

from mgcc_export.bundle.in_context import InContextParts
from mgcc_export.stages.golden import MOST_STEPS, WORDS, golden_parts, named_parts, request_files
from mgcc_ref.grounded import GroundedObject
from mgcc_ref.model import MgccModel
from mgcc_runtime.contract import Grounder


def golden_files(
    model: MgccModel, in_context: InContextParts | None, most_steps: int = MOST_STEPS, words: int = WORDS
) -> dict[str, bytes]:
    """The files by their names.

    The request of a bundle that has the in-context grounder alone brings its boxes: with edited examples others would
    be written, and a language model that is read from its file for each token would write them for hours.
    """
    files: dict[str, bytes] = {}
    boxes: tuple[GroundedObject, ...] | None = None
    if in_context is not None:
        if not model.profile.llm.too_large:
            parts = golden_parts(model)
            files, written = in_context.golden(parts, named_parts(parts))
            boxes = written.objects()
        boxes = boxes or tuple(GroundedObject(label, box, 1.0) for label, box in in_context.prompt.examples[0].objects)
    given = None if Grounder.LAYOUT_HEAD in model.profile.grounders else boxes
    return files | request_files(model, most_steps, words, given)
