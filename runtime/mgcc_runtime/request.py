"""A request, checked: everything a user can get wrong is refused here, before any stage runs."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypedDict

from mgcc_runtime.contract import Grounder
from mgcc_runtime.decoding import TextOptions
from mgcc_runtime.errors import LayoutError, OptionError
from mgcc_runtime.layout import Box, BoxMode
from mgcc_runtime.options import GUIDANCE, REQUEST, settle
from mgcc_runtime.values import shown

Boxes: TypeAlias = "BoxMode | str | Sequence[Box | Mapping[str, object]]"


class RequestOptions(TypedDict, total=False):
    """The options of a request as `Pipeline.stream` explains them; what is left out has its default in `Request`."""

    seed: int
    steps: int | None
    guidance: float | None
    words: int
    boxes: Boxes
    grounder: Grounder | str | None
    text: TextOptions | None
    preview_every: int
    preview: Preview | str


class RedrawOptions(TypedDict, total=False):
    """The options of a picture that is drawn again, as `Pipeline.stream_redraw` explains them."""

    seed: int | None
    steps: int | None
    guidance: float | None
    boxes: Boxes | None
    preview_every: int
    preview: Preview | str


class Preview(str, enum.Enum):
    """How previews are made of the latents of a step."""

    EXACT = "exact"  # by the decoder, as the picture itself
    LINEAR = "linear"  # by a linear map of the bundle: a blurred likeness, which costs next to nothing


class Draw(enum.Enum):
    """Whether a turn of a dialogue is drawn."""

    ALWAYS = "always"
    AUTO = "auto"  # the model decides by what the turn says


@dataclass(frozen=True, kw_only=True)
class Request:
    """How a prompt is to be answered, with all defaults filled in; OptionError for a value out of range."""

    seed: int = 0
    steps: int
    guidance: float | None  # None: a distilled UNet has it in its weights
    words: int = 0  # the most words of text; 0: no text
    boxes: BoxMode | tuple[Box, ...] = BoxMode.AUTO
    grounder: Grounder  # for BoxMode.AUTO
    text: TextOptions = field(default_factory=TextOptions)
    preview_every: int = 0  # a preview image every so many steps; 0: none
    preview: Preview = Preview.EXACT

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
