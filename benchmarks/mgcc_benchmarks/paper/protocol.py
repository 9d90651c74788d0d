"""GILL's rules on VIST and VisDial, each a switch with a name; `MENDED` is what one would do today."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar, get_type_hints

from mgcc_runtime.errors import OptionError


class Text(enum.StrEnum):
    """Which text of a VIST annotation is read."""

    TEXT = "text"  # tokenised, in lower case, names replaced by [male] and the like
    ORIGINAL_TEXT = "original_text"


class Order(enum.StrEnum):
    """The order of the sentences of a VIST story."""

    FILE = "file"
    ARRANGED = "arranged"  # by worker_arranged_photo_order


class Images(enum.StrEnum):
    """Which pictures of VIST count as present."""

    URL_O = "url_o"  # those whose entry links to the original; other files are ignored
    ANY = "any"


class Fit(enum.StrEnum):
    """The shape in which pictures are given to the model and compared."""

    SQUASH = "squash"  # 224x224, whatever the aspect
    KEEP = "keep"  # as they are; the vision tower and the scores scale and cut them


class Turn(enum.StrEnum):
    """Which way up pictures are, and what is behind transparent ones."""

    STORED = "stored"  # EXIF is ignored and alpha dropped
    EXIF = "exif"  # turned as EXIF says, over white


class Missing(enum.StrEnum):
    """How a story that lacks a shown picture is handled."""

    SKIP = "skip"
    LEAVE_OUT = "leave_out"  # drawn from the others


class Results(enum.StrEnum):
    """The name of a drawn picture."""

    LAST_PICTURE = "last_picture"  # the true picture's id: of stories with the same one, the last drawing stays
    ITEM = "item"


class Noise(enum.StrEnum):
    """Where an item's noise comes from."""

    RUNNING = "running"  # one generator for all items that are drawn, in their order
    ITEM = "item"  # seeded by the item's name


class Prompt(enum.StrEnum):
    """The parts before the rounds of a VisDial dialogue."""

    ROUNDS = "rounds"  # nothing
    CAPTION = "caption"
    CAPTION_AND_PICTURE = "caption_and_picture"  # with the true picture, which is drawn again


class LpipsPairs(enum.StrEnum):
    """Which pictures LPIPS compares."""

    FILE_NAME = "file_name"  # files of the same name in both folders, each once
    ITEM = "item"  # those that the similarities compare


class Unpaired(enum.StrEnum):
    """How a score handles pairs that lack a picture."""

    LEFT_OUT = "left_out"  # the mean over the pairs that there are
    REFUSED = "refused"  # no score at all


@dataclass(frozen=True)
class VistProtocol:
    text: Text
    order: Order
    images: Images
    fit: Fit
    turn: Turn
    missing: Missing
    results: Results
    noise: Noise
    lpips_pairs: LpipsPairs
    unpaired: Unpaired


@dataclass(frozen=True)
class VisdialProtocol:
    prompt: Prompt
    fit: Fit
    turn: Turn
    noise: Noise
    lpips_pairs: LpipsPairs
    unpaired: Unpaired


Protocol = VistProtocol | VisdialProtocol
_P = TypeVar("_P", VistProtocol, VisdialProtocol)


class Known(enum.StrEnum):
    """The protocols with a name."""

    GILL = "gill"
    MENDED = "mended"


VIST = {
    Known.GILL: VistProtocol(
        Text.TEXT, Order.FILE, Images.URL_O, Fit.SQUASH, Turn.STORED, Missing.SKIP, Results.LAST_PICTURE,
        Noise.RUNNING, LpipsPairs.FILE_NAME, Unpaired.LEFT_OUT,
    ),
    Known.MENDED: VistProtocol(
        Text.ORIGINAL_TEXT, Order.ARRANGED, Images.ANY, Fit.KEEP, Turn.EXIF, Missing.SKIP, Results.ITEM,
        Noise.ITEM, LpipsPairs.ITEM, Unpaired.LEFT_OUT,
    ),
}  # fmt: skip
VISDIAL = {
    Known.GILL: VisdialProtocol(
        Prompt.ROUNDS, Fit.KEEP, Turn.STORED, Noise.RUNNING, LpipsPairs.FILE_NAME, Unpaired.LEFT_OUT
    ),
    Known.MENDED: VisdialProtocol(Prompt.ROUNDS, Fit.KEEP, Turn.EXIF, Noise.ITEM, LpipsPairs.ITEM, Unpaired.LEFT_OUT),
}


def with_switches(protocol: _P, given: Sequence[str]) -> _P:
    """The protocol with switches of the form NAME=VALUE set; OptionError names what there is instead."""
    kinds: dict[str, type[enum.StrEnum]] = get_type_hints(type(protocol))
    for one in given:
        name, _, value = one.partition("=")
        if name not in kinds:
            raise OptionError(f"--switch is {one!r}, expected one of {', '.join(kinds)}; give NAME=VALUE")
        values = [member.value for member in kinds[name]]
        if value not in values:
            raise OptionError(f"--switch {name} is {value!r}, expected {' or '.join(values)}; choose one")
        changed: dict[str, Any] = {name: kinds[name](value)}
        protocol = replace(protocol, **changed)
    return protocol


#: Switches of the scores, on which pictures do not depend.
OF_SCORES = ("lpips_pairs", "unpaired")


def to_json(protocol: Protocol) -> dict[str, str]:
    return {name: value.value for name, value in asdict(protocol).items()}


def differences(protocol: Protocol, other: Protocol) -> list[str]:
    """The switches that differ, as `name=value` of `protocol`."""
    return [
        f"{f.name}={_value(protocol, f.name)}" for f in fields(protocol)
        if _value(protocol, f.name) != _value(other, f.name)
    ]  # fmt: skip


def _value(protocol: Protocol, name: str) -> Any:
    return getattr(protocol, name).value


def switches_told(protocols: dict[Known, _P]) -> str:
    """The help of --switch: each switch with its values, GILL's first."""
    first = protocols[Known.GILL]
    kinds: dict[str, type[enum.StrEnum]] = get_type_hints(type(first))
    return "; ".join(
        f"{name}: {'|'.join(sorted((m.value for m in kind), key=lambda v: v != _value(first, name)))}"
        for name, kind in kinds.items()
    )
