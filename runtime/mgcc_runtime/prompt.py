"""From the parts of a prompt, texts and images in order, to the language model's input embeddings."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tokenizers import Encoding, Tokenizer

from mgcc_runtime.bundle.folder import REBUILD, Bundle
from mgcc_runtime.cancelling import Cancel
from mgcc_runtime.contract import words_at
from mgcc_runtime.errors import BundleError, ContextLimitError, PromptError
from mgcc_runtime.files import native_path
from mgcc_runtime.images.conversion import ImageSource, fit_square, load_image
from mgcc_runtime.layout_text import beginning
from mgcc_runtime.names import EMBEDDINGS, TOKENIZER

Part: TypeAlias = "str | ImageSource"

_VISUAL = -1  # stands for one visual token in `Prompt.ids`
_LONGEST_TOKEN = 128  # characters; a longer text than this times the context is first tried by its beginning


@dataclass(frozen=True)
class Prompt:
    """A prompt, or a piece of one, in the language model's positions."""

    ids: NDArray[np.int64]  # (S,) token ids, -1 where a visual token goes
    images: tuple[Image.Image, ...]  # RGB, in order, of the vision encoder's size; k positions of -1 each
    words: tuple[str, ...]  # S entries: the user's word at that position, "" in images and template
    parts: tuple[str | None, ...] = ()  # what the user gave: texts, and None for each of `images`

    @property
    def length(self) -> int:
        return len(self.ids)

    @classmethod
    def template(cls, ids: Sequence[int]) -> Prompt:
        """A piece of the template: no images, no words of the user."""
        return cls(np.array(ids, np.int64), (), ("",) * len(ids))

    @classmethod
    def join(cls, pieces: Sequence[Prompt]) -> Prompt:
        """One piece after the other; at least one."""
        return cls(
            np.concatenate([piece.ids for piece in pieces]),
            tuple(chain.from_iterable(piece.images for piece in pieces)),
            tuple(chain.from_iterable(piece.words for piece in pieces)),
            tuple(chain.from_iterable(piece.parts for piece in pieces)),
        )


@dataclass(frozen=True)
class _Text:
    """A text and its tokens; those of its beginning where they alone are more than the context."""

    text: str
    encoding: Encoding
    whole: bool


@dataclass(frozen=True)
class Draft:
    """Parts that were checked and counted. No image was opened yet and no word looked up, which takes longer."""

    parts: tuple[_Text | ImageSource, ...]
    length: int  # positions, with the separators between the parts
    exact: bool  # False: `length` counts only the beginning of a very long text


class PromptBuilder:
    """Holds a bundle's tokenizer, token embeddings and template. Nothing changes once it is made: threads share it."""

    def __init__(self, bundle: Bundle) -> None:
        self._dimensions = d = bundle.manifest.dimensions
        self._image_ids = bundle.manifest.tokens.image
        path = bundle.file(TOKENIZER)
        try:
            self.tokenizer = Tokenizer.from_file(native_path(path))
        except Exception as error:  # noqa: BLE001 (the tokenizers library raises bare Exception)
            raise BundleError(f"{path} is not a tokenizer ({error}); {REBUILD}") from None
        self._embeddings = bundle.array(EMBEDDINGS, (d.vocabulary, d.hidden))
        if len(self._image_ids) != d.image_tokens or not all(0 <= i < d.vocabulary for i in self._image_ids):
            raise BundleError(f"bundle {bundle.root} has the [IMG] ids {self._image_ids} and {d}; {REBUILD}")
        # special tokens are recognised in the template and nowhere else
        template = bundle.manifest.prompt.to_json()
        ids = {name: _encode(self.tokenizer, text).ids for name, text in template.items()}
        # from here on a user's "<|im_end|>" is plain text, so that nobody can forge a turn
        self.tokenizer.encode_special_tokens = True
        self._control = _control_tokens(self.tokenizer, {*chain(*ids.values()), *bundle.manifest.tokens.end})
        self.opening = Prompt.template(ids["opening"] + ids["user_open"])  # before the first part
        self.separator = Prompt.template(ids["separator"])  # between two parts, and before a later turn's first one
        self.closing = Prompt.template(ids["user_close"] + ids["assistant_open"])  # between last part and answer
        self._image_open, self._image_close = map(Prompt.template, (ids["image_open"], ids["image_close"]))
        self.beginning = ids["opening"] if beginning(bundle.manifest.prompt) else []  # of any text, not of a dialogue
        self._anchor = _encode(self.tokenizer, "a").ids
        self._anchored = len(str(self.tokenizer.decode(self._anchor)))

    def build(self, parts: Sequence[Part], words: int | None = None, cancel: Cancel | None = None) -> Prompt:
        """A whole request. PromptError or ImageError if the parts cannot be used; as `finish` about `cancel`.

        With `words`, those the answer may have, ContextLimitError if both do not fit; no image is opened before that.
        """
        draft = self.draft(parts)
        if words is not None:
            length = self.opening.length + draft.length + self.closing.length
            self.check_length(length, words, exact=draft.exact)
        return Prompt.join([self.opening, self.finish(draft, cancel), self.closing])

    def draft(self, parts: Sequence[Part]) -> Draft:
        """The parts alone, counted; PromptError if they cannot be used. Images are not looked at."""
        if isinstance(parts, str | os.PathLike | Image.Image) or not isinstance(parts, Iterable):
            raise PromptError(f"the prompt is one {type(parts).__name__}, expected a list of parts; put it in a list")
        drafted = tuple(self._draft_part(part, number) for number, part in enumerate(parts, 1))
        if not drafted:
            raise PromptError("the prompt is empty, expected at least one text or image; add a part")
        image = self._image_open.length + self._dimensions.visual_tokens + self._image_close.length
        lengths = [len(part.encoding) if isinstance(part, _Text) else image for part in drafted]
        exact = all(part.whole for part in drafted if isinstance(part, _Text))
        return Draft(drafted, sum(lengths) + self.separator.length * (len(drafted) - 1), exact)

    def _draft_part(self, part: Part, number: int) -> _Text | ImageSource:
        if isinstance(part, Image.Image | os.PathLike):
            return part
        if not isinstance(part, str):
            raise PromptError(
                f"part {number} of the prompt is {type(part).__name__}, expected str, Path or PIL image; convert it"
            )
        if not part.strip():
            raise PromptError(f"part {number} of the prompt is an empty text; fill it or leave it out")
        try:
            part.encode()
        except UnicodeEncodeError as error:
            raise PromptError(
                f"part {number} of the prompt has half a character at position {error.start}, expected a text of "
                "whole ones; read it with its right encoding"
            ) from None
        text = self._tokenise(part)
        if forged := self._control.intersection(text.encoding.ids):
            token = self.tokenizer.id_to_token(min(forged))
            raise PromptError(f"part {number} of the prompt holds the control token {token!r}; take it out")
        return text

    def _tokenise(self, text: str) -> _Text:
        room = self._dimensions.context
        if len(text) > _LONGEST_TOKEN * room:
            beginning = _encode(self.tokenizer, text[: _LONGEST_TOKEN * room])
            if len(beginning) > room:
                return _Text(text, beginning, whole=False)
        return _Text(text, _encode(self.tokenizer, text), whole=True)

    def finish(self, draft: Draft, cancel: Cancel | None = None) -> Prompt:
        """The draft's positions, words and images, read and scaled; ImageError if one cannot be used.

        CancelledError before the next image of a request that is no longer wanted.
        """
        pieces: list[Prompt] = []
        for part in draft.parts:
            if pieces:
                pieces.append(self.separator)
            if isinstance(part, _Text):
                encoding = part.encoding if part.whole else _encode(self.tokenizer, part.text)
                words = words_at(part.text, encoding.offsets)
                pieces.append(Prompt(np.array(encoding.ids, np.int64), (), words, (part.text,)))
                continue
            if cancel is not None:
                cancel.check()
            image = fit_square(load_image(part), self._dimensions.vision_px)
            visual = Prompt.template([_VISUAL] * self._dimensions.visual_tokens)
            pieces += [self._image_open, Prompt(visual.ids, (image,), visual.words, (None,)), self._image_close]
        return Prompt.join(pieces)

    def room(self, words: int) -> int:
        """The most positions that a prompt may have: the [IMG] tokens, or the text, need the rest of the context."""
        return self._dimensions.context - max(self._dimensions.image_tokens, words)

    def check_length(self, length: int, words: int, *, exact: bool = True) -> None:
        """ContextLimitError, with the excess, if a prompt of `length` positions and its answer pass the context.

        `exact` is False where the prompt has at least that many.
        """
        if (excess := length - self.room(words)) > 0:
            context = self._dimensions.context
            raise ContextLimitError(
                f"the prompt takes {'' if exact else 'at least '}{length} tokens and the answer at least "
                f"{context - self.room(words)}, {excess} more than the context of {context}; "
                "shorten the texts, leave out early parts or ask for fewer words"
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
    def image_marks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids before and after an image's visual tokens."""
        return self._image_open.ids, self._image_close.ids

    def spell_out(self, text: str) -> list[int]:
        """Ids of a text in which nothing is a special token."""
        return list(_encode(self.tokenizer, text).ids)

    def spelled(self, token: int) -> str:
        """What a token adds to a text; read off behind another one, since some decoders drop a text's first space."""
        return str(self.tokenizer.decode([*self._anchor, token]))[self._anchored :]

    @property
    def image_token_embeddings(self) -> NDArray[np.float32]:
        """The r [IMG] tokens: (1, r, D)."""
        return self.embed(np.array(self._image_ids, np.int64))

    def decode(self, ids: Sequence[int]) -> str:
        """Ids -> text, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))


def _encode(tokenizer: Tokenizer, text: str) -> Encoding:
    return tokenizer.encode(text, add_special_tokens=False)


def _control_tokens(tokenizer: Tokenizer, used: set[int]) -> frozenset[int]:
    """Ids that no text of a user may have: the added tokens that `used`, template and ends, has.

    A tokenizer that is told so spells special tokens out, but not added ones that its file does not call special. What
    stands for an unknown character may be in any text.
    """
    added, unknown = tokenizer.get_added_tokens_decoder(), getattr(tokenizer.model, "unk_token", None)
    return frozenset(i for i, token in added.items() if i in used and token.content != unknown)
