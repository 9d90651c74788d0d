"""Content filters: what may be asked for, and which pictures are given.

A bundle's labels bound its pictures; written text is unbounded. There is no filter unless whoever runs the server names
one: a word list, or a class of their own (`--filter package.module:Name`, made without arguments).
"""

from __future__ import annotations

import enum
import importlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

from PIL import Image

from mgcc_kiosk.errors import ApiError, Code
from mgcc_runtime.errors import OptionError
from mgcc_runtime.reading import read_text

_APOSTROPHE = re.compile("['\u2019]")
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class ContentFilter(Protocol):
    """Both give None where all is well, else one sentence for the visitor. They are called from several threads."""

    def before(self, texts: Sequence[str]) -> str | None:
        """Of the texts of a request, before it waits."""

    def after(self, image: Image.Image | None, text: str) -> str | None:
        """Of a picture and the text beside it, or of an answer in words alone."""


class Words(enum.Enum):
    """What a word list is of."""

    ALLOWED = "allowed"
    BLOCKED = "blocked"


class WordList:
    """Texts are taken word by word, whatever their case."""

    def __init__(self, words: frozenset[str], kind: Words) -> None:
        self._words, self._kind = frozenset(word.casefold() for word in words), kind

    @classmethod
    def read(cls, path: Path, kind: Words) -> WordList:
        """A file with a word a line, and `#` before remarks; InputError if it cannot be read or has none."""
        lines = (line.partition("#")[0].strip() for line in read_text(path, "word list").splitlines())
        words = frozenset(word for line in lines for word in _WORD.findall(line))
        if not words:
            raise OptionError(f"word list {path} has no word, expected one a line; fill it or leave the option out")
        return cls(words, kind)

    def before(self, texts: Sequence[str]) -> str | None:
        for text in texts:
            for word in _WORD.findall(text.casefold()):
                stem = _APOSTROPHE.split(word)[0]  # "the cat's" is of the cat
                if (word in self._words or stem in self._words) is (self._kind is Words.BLOCKED):
                    return "the text has a word that is not taken here; say it in other words"
        return None

    def after(self, image: Image.Image | None, text: str) -> str | None:
        return self.before([text]) if self._kind is Words.BLOCKED else None


class Filters:
    """All filters of a server."""

    def __init__(self, filters: Sequence[ContentFilter] = ()) -> None:
        self._filters = tuple(filters)
        self.lists_words = any(isinstance(one, WordList) for one in filters)
        #: Whether previews, and the text as it is written, are held back: nobody has judged them.
        self.judge_pictures, self.judge_texts = any(not isinstance(one, WordList) for one in filters), bool(filters)

    def check_texts(self, texts: Sequence[str]) -> None:
        """ApiError `moderation_blocked`."""
        _raise_first([one.before(texts) for one in self._filters])

    def check_answer(self, image: Image.Image | None, text: str) -> None:
        """ApiError `moderation_blocked`."""
        _raise_first([one.after(image, text) for one in self._filters])


def load_filter(name: str) -> ContentFilter:
    """An object of the class `package.module:Name`; OptionError where there is none."""
    module, _, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise OptionError(
            f"filter is {name!r}, expected package.module:Name of a class without arguments ({error}); correct it"
        ) from None
    if not callable(getattr(made, "before", None)) or not callable(getattr(made, "after", None)):
        raise OptionError(f"filter {name!r} lacks before(texts) or after(image, text); add them")
    return cast(ContentFilter, made)


def _raise_first(reasons: Sequence[str | None]) -> None:
    for reason in reasons:
        if reason is not None:
            raise ApiError(Code.MODERATION_BLOCKED, reason)
