"""A layout as text, and the prompt that asks a language model for one: what reference, exporter and runtime share.

    fox: [0.10, 0.52, 0.38, 0.90]
    balloon: [0.60, 0.05, 0.75, 0.40]
    END

Corners are x1, y1, x2, y2 in hundredths of the picture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mgcc_runtime.contract import PromptTemplate

Edges: TypeAlias = "tuple[float, float, float, float]"  # xyxy in [0, 1]

END = "END"
LABEL_END = ": ["
COORDINATE_ENDS = (", ", ", ", ", ", "]\n")
#: "0.00" to "1.00": sorted as numbers and as texts alike.
COORDINATES = tuple(f"{n / 100:.2f}" for n in range(101))
COORDINATE_LENGTH = len(COORDINATES[0])
#: Between the caption and the layout of its picture.
CAPTION_END = "\nLayout:\n"

#: Of a label where there is no list of them, and of a box: the least side in hundredths of the picture.
MAX_LABEL_WORDS, MAX_LABEL_CHARS, MIN_SIDE = 3, 24, 4
#: More lines than so many to come make no difference to the next token.
LINES_THAT_COUNT = 2

_LABEL = re.compile(r"[a-z]+( [a-z]+)*")
_LINE = re.compile(r"([^:\n]+): \[([01]\.\d\d), ([01]\.\d\d), ([01]\.\d\d), ([01]\.\d\d)\]")
_TWO_COORDINATES = re.compile(r"\d[^,]*,.*\d", re.DOTALL)


@dataclass(frozen=True)
class WorkedExample:
    caption: str
    objects: tuple[tuple[str, Edges], ...]


@dataclass(frozen=True)
class LayoutPrompt:
    """What the language model reads before the caption: an instruction, then worked examples."""

    instruction: str
    examples: tuple[WorkedExample, ...]

    def opening(self, labels: Sequence[str]) -> str:
        """Everything before the first caption of a user; `labels` is the closed list, empty for an open vocabulary."""
        worked = "".join(
            f"Caption:{one_line(e.caption)}{CAPTION_END}{write_layout(e.objects)}\n\n" for e in self.examples
        )
        allowed = f" Objects: {', '.join(labels)}." if labels else ""
        return f"{self.instruction}{allowed}\n\n{worked}Caption:"

    def to_json(self) -> dict[str, Any]:
        """The examples' file."""
        return {
            "instruction": self.instruction,
            "examples": [
                {"caption": e.caption, "objects": [{"label": label, "xyxy": list(box)} for label, box in e.objects]}
                for e in self.examples
            ],
        }

    @classmethod
    def from_json(cls, values: object) -> LayoutPrompt:
        """Rebuild from `to_json`; ValueError says, without a full stop, what is of another form."""
        found = _fields(values, "the file", ("instruction", "examples"))
        examples = _items(found["examples"], "examples")
        if not examples:
            raise ValueError("it has no examples, expected one at least")
        return cls(
            _text(found["instruction"], "instruction"),
            tuple(_example(example, f"example {number}") for number, example in enumerate(examples, 1)),
        )


#: What bundles are given where no other file is.
DEFAULT_PROMPT = LayoutPrompt(
    "Each caption is followed by the layout of its picture: a line for each object, with the object's box as left, "
    "top, right and bottom edge from 0.00 to 1.00, then END.",
    (
        WorkedExample(
            "A dog sits under a tree.", (("tree", (0.30, 0.08, 0.72, 0.60)), ("dog", (0.36, 0.62, 0.66, 0.92)))
        ),
        WorkedExample(
            "The car is on the left and a house stands to its right. The sun shines in the top right corner.",
            (
                ("car", (0.06, 0.58, 0.40, 0.86)),
                ("house", (0.54, 0.40, 0.94, 0.86)),
                ("sun", (0.74, 0.04, 0.98, 0.28)),
            ),
        ),
        WorkedExample("There is a small ball in the middle.", (("ball", (0.38, 0.38, 0.62, 0.62)),)),
    ),
)


def beginning(template: PromptTemplate) -> str:
    """What every text begins with for this language model: the template's opening, unless that opens a dialogue."""
    return "" if template.user_open else template.opening


def one_line(text: str) -> str:
    """A text of the user behind "Caption:", on one line so that it cannot pose as an example."""
    return " " + " ".join(text.split())


def write_layout(objects: Sequence[tuple[str, Edges]]) -> str:
    """Labels and boxes as text, END included."""
    lines = [f"{label}: [{', '.join(f'{value:.2f}' for value in box)}]\n" for label, box in objects]
    return "".join(lines) + END


def read_layout(text: str) -> list[tuple[str, Edges]]:
    """The inverse of `write_layout`. ValueError names the first line that is not of the form."""
    *lines, last = text.split("\n")
    if last != END:
        raise ValueError(f"a layout ends with {last!r}; expected {END!r}")
    objects = []
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"{line!r} is no line of a layout; expected 'label: [x1, y1, x2, y2]'")
        x1, y1, x2, y2 = (float(value) for value in match.groups()[1:])
        objects.append((match[1], (x1, y1, x2, y2)))
    return objects


def longest_line(labels: Sequence[str]) -> int:
    """Most characters that one line can take."""
    label = max(map(len, labels)) if labels else MAX_LABEL_CHARS
    return label + len(LABEL_END) + 4 * COORDINATE_LENGTH + sum(map(len, COORDINATE_ENDS))


def may_be_a_token(text: str) -> bool:
    """Whether a layout is written with this token: not with one that has digits of two coordinates of a line.

    So what may follow depends on one bound alone, and a table of masks stays small. Every digit is a token, too.
    """
    return _TWO_COORDINATES.search(text) is None


def mask_key(line: str, lines_left: int, *, open_labels: bool) -> str:
    """What decides which tokens may come next: places in a layout with the same key have the same mask.

    `line`: what is written of the present line. `lines_left`: how many may still be written, the present one included.
    """
    left = min(lines_left, LINES_THAT_COUNT)
    label, opened, rest = line.partition("[")
    if not opened:
        return f"{min(left, 1)}|{_label_key(label) if open_labels else label}"
    values = rest.split(", ")
    slot, digits, tail = len(values), values[-1][:COORDINATE_LENGTH], values[-1][COORDINATE_LENGTH:]
    if len(digits) < COORDINATE_LENGTH:
        bound = values[slot - 3] if slot > 2 else ""
        return f"{slot}|{digits}|{bound}|{left if slot > 3 else ''}"
    bound = values[slot - 2] if slot in (2, 3) else ""  # of the next coordinate
    return f"{slot}|{tail}/|{bound}|{left if slot > 2 else ''}"


def _label_key(label: str) -> str:
    """Of any lower-case words: how many and how long they are, not what they say."""
    words, colon, tail = label.partition(":")
    if colon:
        return f":{tail}"
    if words and END.startswith(words):
        return words
    return f"{len(words)},{words.count(' ')},{words.endswith(' ')}"


def _example(values: object, name: str) -> WorkedExample:
    found = _fields(values, name, ("caption", "objects"))
    objects = _items(found["objects"], f"objects of {name}")
    return WorkedExample(
        _text(found["caption"], f"caption of {name}"),
        tuple(_object(one, f"object {number} of {name}") for number, one in enumerate(objects, 1)),
    )


def _object(values: object, name: str) -> tuple[str, Edges]:
    found = _fields(values, name, ("label", "xyxy"))
    label, box = _text(found["label"], f"label of {name}"), found["xyxy"]
    if not _LABEL.fullmatch(label):
        raise ValueError(f"the label of {name} is {label[:60]!r}, expected lower-case words of a to z")
    numbers = box if isinstance(box, list) else []
    if len(numbers) != 4 or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers):
        raise ValueError(f"the xyxy of {name} is {str(box)[:60]}, expected four numbers from 0 to 1")
    x1, y1, x2, y2 = map(float, numbers)
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
        raise ValueError(f"the xyxy of {name} is {numbers}, expected left < right and top < bottom, all from 0 to 1")
    return label, (x1, y1, x2, y2)


def _fields(values: object, name: str, names: Sequence[str]) -> Mapping[str, object]:
    if not isinstance(values, dict) or values.keys() != {*names}:
        raise ValueError(f"{name} has not the fields {' and '.join(names)} alone")
    return values


def _items(values: object, name: str) -> Sequence[object]:
    if not isinstance(values, list):
        raise ValueError(f"the {name} are no list")
    return values


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"the {name} is no text")
    return value
