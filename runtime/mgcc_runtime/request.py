"""A request, checked: everything a user can get wrong is refused here, before any stage runs."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypedDict

from mgcc_runtime.decoding import TextOptions
from mgcc_runtime.errors import LayoutError, OptionError
from mgcc_runtime.layout import Box, BoxMode
from mgcc_runtime.options import GUIDANCE, REQUEST, settle
from mgcc_runtime.values import shown

Boxes: TypeAlias = "BoxMode | str | Sequence[Box | Mapping[str, object]]"


class RequestOptions(TypedDict, total=False):
    """The options of a request as `Pipeline.stream` explains them; what is left out has its default there."""

    seed: int
    steps: int | None
    guidance: float | None
    words: int
    boxes: Boxes
    text: TextOptions | None
    preview_every: int


class Draw(enum.Enum):
    """Whether a turn of a dialogue is drawn."""

    ALWAYS = "always"
    AUTO = "auto"  # the model decides, by producing [IMG1] or words


@dataclass(frozen=True)
class Request:
    """How a prompt is to be answered, with all defaults filled in; OptionError for a value out of range."""

    seed: int
    steps: int
    guidance: float | None  # None: a distilled UNet has it in its weights
    words: int  # the most words of text; 0: no text
    boxes: BoxMode | tuple[Box, ...]
    text: TextOptions
    preview_every: int  # a preview image every so many steps; 0: none

    def __post_init__(self) -> None:
        settle(self, *REQUEST)
        if self.guidance is not None:
            settle(self, GUIDANCE)
        if not isinstance(self.text, TextOptions):
            raise OptionError(f"text is {shown(self.text)}, expected TextOptions; give those, or None for the defaults")


def box_mode(boxes: Boxes) -> BoxMode | None:
    """The mode that `boxes` names, or None where they are a list; LayoutError for an unknown word."""
    if not isinstance(boxes, str):
        return None
    try:
        return BoxMode(boxes)
    except ValueError:
        raise LayoutError(f"boxes is {boxes!r}, expected 'auto', 'none' or a list of boxes; choose one") from None
