"""A request, checked: everything a user can get wrong is refused here, before any stage runs."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypedDict

from mgcc_runtime.decoding import TextOptions
from mgcc_runtime.errors import LayoutError, OptionError
from mgcc_runtime.layout import Box, BoxMode
from mgcc_runtime.values import is_number

Boxes: TypeAlias = "BoxMode | str | Sequence[Box | Mapping[str, object]]"

MAX_GUIDANCE = 100.0  # far above any useful scale; larger ones only overflow
MAX_SEED = 2**63 - 1


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
    """How a prompt is to be answered, with all defaults filled in."""

    seed: int
    steps: int
    guidance: float | None  # None: a distilled UNet has it in its weights
    words: int  # the most words of text; 0: no text
    boxes: BoxMode | tuple[Box, ...]
    text: TextOptions
    preview_every: int  # a preview image every so many steps; 0: none

    def __post_init__(self) -> None:
        _check_integer("seed", self.seed, 0, MAX_SEED)
        _check_integer("steps", self.steps, 1, 1000)
        _check_integer("words", self.words, 0, 100_000)
        _check_integer("preview_every", self.preview_every, 0, 1000)
        if not isinstance(self.text, TextOptions):
            raise OptionError(f"text is {self.text!r}, expected TextOptions; give those, or None for the defaults")
        if self.guidance is None:
            return
        if not is_number(self.guidance):
            raise OptionError(f"guidance is {self.guidance!r}, expected a number from 0 to {MAX_GUIDANCE}; try 2")
        if not 0 <= self.guidance <= MAX_GUIDANCE:
            raise OptionError(f"guidance is {self.guidance}, expected 0 to {MAX_GUIDANCE}; try 2")


def _check_integer(name: str, value: object, least: int, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise OptionError(f"{name} is {value!r}, expected a whole number from {least} to {most}; change it")


def box_mode(boxes: Boxes) -> BoxMode | None:
    """The mode that `boxes` names, or None where they are a list; LayoutError for an unknown word."""
    if not isinstance(boxes, str):
        return None
    try:
        return BoxMode(boxes)
    except ValueError:
        raise LayoutError(f"boxes is {boxes!r}, expected 'auto', 'none' or a list of boxes; choose one") from None
