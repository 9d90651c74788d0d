"""From the parts of a prompt, texts and images in order, to the language model's input embeddings."""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Encoding, Tokenizer

from mgcc_runtime.bundle import REBUILD, Bundle
from mgcc_runtime.errors import BundleError, ContextLimitError, PromptError
from mgcc_runtime.images import ImageSource, load_image

Part: TypeAlias = "str | ImageSource"

_VISUAL = -1  # stands for one visual token in `Prompt.ids`


class Place(enum.Enum):
    """Where parts stand in a conversation."""

    FIRST = "first"
    LATER = "later"


@dataclass(frozen=True)
class Prompt:
    """A prompt, or a piece of one, in the language model's positions."""

    ids: NDArray[np.int64]  # (S,) token ids, -1 where a visual token goes
    images: tuple[Image.Image, ...]  # RGB, in order; k positions of -1 each
    words: tuple[str, ...]  # S entries: the user's word at that position, "" in images and template

    @property
    def length(self) -> int:
        return len(self.ids)

    def __add__(self, other: Prompt) -> Prompt:
        """One prompt after the other."""
        return Prompt(np.concatenate([self.ids, other.ids]), self.images + other.images, self.words + other.words)


class PromptBuilder:
    """Holds a bundle's tokenizer, token embeddings and template."""

    def __init__(self, bundle: Bundle) -> None:
        self._dimensions = d = bundle.manifest.dimensions
        self._template = bundle.manifest.prompt
        self._image_ids = bundle.manifest.tokens.image
        path = bundle.file("tokenizer.json")
        try:
            self.tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # noqa: BLE001 (the tokenizers library raises bare Exception)
            raise BundleError(f"{path} is not a tokenizer ({error}); {REBUILD}") from None
        self._embeddings = bundle.array("embed_tokens.npy", (d.vocabulary, d.hidden))
        if len(self._image_ids) != d.image_tokens or not all(0 <= i < d.vocabulary for i in self._image_ids):
            raise BundleError(f"bundle {bundle.root} has the [IMG] ids {self._image_ids} and {d}; {REBUILD}")

    @cached_property
    def _pieces(self) -> dict[str, list[int]]:
        """Ids of the template's pieces; special tokens are recognised in these and nowhere else."""
        self.tokenizer.encode_special_tokens = False
        found = {name: _encode(self.tokenizer, text).ids for name, text in self._template.to_json().items()}
        # from here on a user's "<|im_end|>" is plain text, so that nobody can forge a turn
        self.tokenizer.encode_special_tokens = True
        return found

    def build(self, parts: Sequence[Part]) -> Prompt:
        """A whole request. PromptError or ImageError if the parts cannot be used."""
        return self.body(parts, Place.FIRST) + self.closing

    @cached_property
    def closing(self) -> Prompt:
        """What stands between the last part and the answer."""
        return _Draft(self._pieces["user_close"] + self._pieces["assistant_open"]).prompt()

    def body(self, parts: Sequence[Part], place: Place) -> Prompt:
        """The parts alone, with what stands before them; PromptError or ImageError if they cannot be used."""
        if isinstance(parts, str | os.PathLike | Image.Image):
            raise PromptError(f"the prompt is one {type(parts).__name__}, expected a list of parts; put it in a list")
        if not parts:
            raise PromptError("the prompt is empty, expected at least one text or image; add a part")
        pieces = self._pieces
        draft = _Draft(pieces["opening"] + pieces["user_open"] if place is Place.FIRST else pieces["separator"])
        for number, part in enumerate(parts, 1):
            if number > 1:
                draft.template(pieces["separator"])
            if isinstance(part, str):
                if not part.strip():
                    raise PromptError(f"part {number} of the prompt is an empty text; fill it or leave it out")
                draft.text(part, _encode(self.tokenizer, part))
            elif isinstance(part, Image.Image | os.PathLike):
                draft.template(pieces["image_open"])
                draft.image(load_image(part), self._dimensions.visual_tokens)
                draft.template(pieces["image_close"])
            else:
                raise PromptError(
                    f"part {number} of the prompt is {type(part).__name__}, expected str, Path or PIL image; convert it"
                )
        return draft.prompt()

    def check_length(self, length: int, words: int) -> None:
        """ContextLimitError, with the excess, unless prompt and [IMG] tokens, or prompt and text, fit the context."""
        room = self._dimensions.context
        after = max(self._dimensions.image_tokens, words)
        if (excess := length + after - room) > 0:
            raise ContextLimitError(
                f"the prompt takes {length} tokens and the answer at least {after}, {excess} more than the "
                f"context of {room}; shorten the texts, leave out early parts or ask for fewer words"
            )

    def embed(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Token ids (S,) -> embeddings (1, S, D)."""
        return np.asarray(self._embeddings[ids], np.float32)[None]

    def embed_prompt(self, prompt: Prompt, visual_tokens: NDArray[np.float32] | None) -> NDArray[np.float32]:
        """Prompt and visual tokens (B, k, D) -> embeddings (1, S, D)."""
        visual = prompt.ids == _VISUAL
        embeddings = self.embed(np.where(visual, 0, prompt.ids))
        if visual_tokens is not None:
            embeddings[0, visual] = visual_tokens.reshape(-1, embeddings.shape[-1])
        return embeddings

    @property
    def image_token_embeddings(self) -> NDArray[np.float32]:
        """The r [IMG] tokens: (1, r, D)."""
        return self.embed(np.array(self._image_ids, np.int64))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids -> text, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


class _Draft:
    """A prompt under construction."""

    def __init__(self, ids: list[int]) -> None:
        self.ids: list[int] = []
        self.words: list[str] = []
        self.images: list[Image.Image] = []
        self.template(ids)

    def template(self, ids: list[int]) -> None:
        self.ids += ids
        self.words += [""] * len(ids)

    def text(self, text: str, encoding: Encoding) -> None:
        self.ids += encoding.ids
        self.words += [_word_at(text, start, end) for start, end in encoding.offsets]

    def prompt(self) -> Prompt:
        return Prompt(np.array(self.ids, np.int64), tuple(self.images), tuple(self.words))

    def image(self, image: Image.Image, visual_tokens: int) -> None:
        self.images.append(image)
        self.template([_VISUAL] * visual_tokens)


def _encode(tokenizer: Tokenizer, text: str) -> Encoding:
    return tokenizer.encode(text, add_special_tokens=False)


def _word_at(text: str, start: int, end: int) -> str:
    """The whole word of which the token text[start:end] is a part; "" for punctuation and spaces."""
    for match in re.finditer(r"\w+(?:[-']\w+)*", text):
        if match.start() < end and start < match.end():
            return match[0]
    return ""
