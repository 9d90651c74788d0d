"""Every option that takes a number or a word, declared once: its type, its range and what to do about another value.

The API, the command line and the benchmarks check by this table, so that what one of them takes the others take, and
what one refuses they refuse in the same sentence. Light, so that a command line may read it before anything is loaded.
"""

from __future__ import annotations

import contextlib
import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from mgcc_runtime.device.cpu_features import available_cores
from mgcc_runtime.errors import OptionError
from mgcc_runtime.values import is_number, is_whole, shown

if TYPE_CHECKING:
    from argparse import ArgumentParser

_Word = TypeVar("_Word", bound=enum.Enum)


@dataclass(frozen=True)
class WholeNumber:
    """An option that counts or numbers something."""

    name: str
    least: int
    most: int
    advice: str = "change it"

    @property
    def expected(self) -> str:
        return f"a whole number from {self.least} to {self.most}"

    def check(self, value: object) -> int:
        """The value as an int, numpy's integers too; OptionError if it is another, or out of range."""
        if is_whole(value) and self.least <= (number := int(value)) <= self.most:
            return number
        raise _refused(self, value)

    def parse(self, text: str) -> int:
        """As `check`, of what somebody typed."""
        return self.check(_typed(text))

    def add_to(self, parser: ArgumentParser, default: int | None, told: str) -> None:
        """As an option of a command line, which raises OptionError."""
        parser.add_argument(_flag(self.name), type=self.parse, default=default, metavar="N", help=told)


class Least(enum.Enum):
    """Whether the least value is one that may be given."""

    TAKEN = "from"
    LEFT_OUT = "above"


@dataclass(frozen=True)
class Number:
    """An option that measures something."""

    name: str
    least: float
    most: float
    advice: str
    bound: Least = Least.TAKEN

    @property
    def expected(self) -> str:
        upper = "to" if self.bound is Least.TAKEN else "and at most"
        return f"a number {self.bound.value} {self.least:g} {upper} {self.most:g}"

    def check(self, value: object) -> float:
        """The value as a float, numpy's numbers too; OptionError if it is none, not finite, or out of range."""
        if not is_number(value) or not self.least <= (number := float(value)) <= self.most:
            raise _refused(self, value)
        if number == self.least and self.bound is Least.LEFT_OUT:
            raise _refused(self, value)
        return number

    def parse(self, text: str) -> float:
        """As `check`, of what somebody typed."""
        return self.check(_typed(text))

    def add_to(self, parser: ArgumentParser, default: float | None, told: str) -> None:
        """As an option of a command line, which raises OptionError."""
        parser.add_argument(_flag(self.name), type=self.parse, default=default, metavar="X", help=told)


Option: TypeAlias = "WholeNumber | Number"


def _typed(text: str) -> object:
    """The number that a text says; the text itself if it is none."""
    with contextlib.suppress(ValueError):
        return int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return text


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _refused(option: Option, value: object) -> OptionError:
    return OptionError(f"{option.name} is {shown(value)}, expected {option.expected}; {option.advice}")


def check_word(name: str, words: type[_Word], value: object) -> _Word:
    """The member of `words` that `value` is or names; OptionError for anything else."""
    if isinstance(value, words):
        return value
    for member in words:
        if isinstance(value, str) and member.value == value:
            return member
    expected = " or ".join(str(member.value) for member in words)
    raise OptionError(f"{name} is {shown(value)}, expected {expected}; choose one")


def settle(options: object, *table: Option) -> None:
    """Check the fields of a frozen dataclass by these options, and put plain numbers in their place."""
    for option in table:
        object.__setattr__(options, option.name, option.check(getattr(options, option.name)))


# of a request
SEED = WholeNumber("seed", 0, 2**63 - 1)
STEPS = WholeNumber("steps", 1, 1000, "try 8")
GUIDANCE = Number("guidance", 0, 100, "try 2")  # far above any useful scale; larger ones only overflow
WORDS = WholeNumber("words", 0, 100_000)
PREVIEW_EVERY = WholeNumber("preview_every", 0, 1000, "use 0 for none")
PICTURES = WholeNumber("n", 1, 64, "ask for fewer at a time")  # of one reading
# of a request's text
TEMPERATURE = Number("temperature", 0, 100, "use 0 to be greedy")
TOP_P = Number("top_p", 0, 1, "use 1 to switch it off", Least.LEFT_OUT)
REPETITION_PENALTY = Number("repetition_penalty", 0.01, 100, "use 1 for none")
# of a pipeline
CHAT_BYTES = WholeNumber("chat_bytes", 0, 10**15, "use 0 to keep nothing")
USUAL_CHAT_BYTES = 2**30
# of an engine. Its threads wait for work by spinning: on two cores a small bundle took 47 s to load with 64 of them,
# and a million end the machine's memory
THREADS = WholeNumber("threads", 0, max(8, 4 * available_cores()), "use 0 for one each core")
# of measurements
RUNS = WholeNumber("runs", 1, 1_000_000)
WARM_UP = WholeNumber("warm_up", 0, 1_000_000)

REQUEST = (SEED, STEPS, WORDS, PREVIEW_EVERY)
TEXT = (TEMPERATURE, TOP_P, REPETITION_PENALTY)
