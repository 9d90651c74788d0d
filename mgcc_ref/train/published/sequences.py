"""Training sequences of captions and pictures in the profile's template, with the target of each position.

The order is the runtime's, so that training and use agree. In GILL's own code the first token is after the picture in
training and before it in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from tokenizers import Encoding
from torch import Tensor

from mgcc_ref.model import MgccModel
from mgcc_ref.tokens import encode_template, encode_user_text

SLOT, PAD, UNTOLD = -1, -2, -100  # the id of a visual token's position, of padding, and the label without a target
TEXT_TOKENS = 32  # GILL's: the first token, the caption and the [IMG] tokens


@dataclass
class Reading:
    """One sequence: ids with SLOT for visual tokens, and for each position its target id or UNTOLD."""

    ids: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def add(self, ids: Sequence[int], *, told: bool = False) -> None:
        self.ids += ids
        self.labels += ids if told else [UNTOLD] * len(ids)


class Writer:
    """Writes readings in a model's template."""

    def __init__(self, model: MgccModel) -> None:
        template, self._tokenizer = model.template, model.tokenizer

        def fixed(*texts: str) -> list[int]:
            return [token for text in texts for token in encode_template(self._tokenizer, text)]

        self._opening = fixed(template.opening, template.user_open)
        self._separator = fixed(template.separator)
        self._picture = [
            *fixed(template.image_open),
            *[SLOT] * model.profile.visual_tokens,
            *fixed(template.image_close),
        ]
        self._closing = fixed(template.user_close, template.assistant_open)
        self._image_ids = list(model.image_token_ids)
        self._room = TEXT_TOKENS - 1 - len(self._image_ids)

    def _caption(self, text: str) -> list[int]:
        return encode_user_text(self._tokenizer, text).ids[: self._room]

    def told(self, captions: Sequence[str]) -> Reading:
        """Pictures, each followed by its caption; all captions are targets."""
        found = Reading()
        found.add(self._opening)
        for i, caption in enumerate(captions):
            found.add(self._separator if i else [])
            found.add(self._picture)
            found.add(self._closing if i == len(captions) - 1 else self._separator)
            found.add(self._caption(caption), told=True)
        return found

    def drawn(self, captions: Sequence[str]) -> Reading:
        """Captions, and the [IMG] tokens after the last; all of these are targets.

        The [IMG] tokens are in the labels alone: the caller appends their trained embeddings.
        """
        found = Reading()
        found.add(self._opening)
        for i, caption in enumerate(captions):
            found.add(self._separator if i else [])
            found.add(self._caption(caption), told=True)
        found.add(self._closing)
        found.labels += self._image_ids
        return found

    def request(self, caption: str, earlier: str | None = None) -> tuple[list[int], Encoding, int]:
        """A request that ends with `caption`, after an earlier caption and its picture: its ids, the caption's
        encoding, and the position of the caption's first token."""
        ids = list(self._opening)
        if earlier is not None:
            ids += [*self._caption(earlier), *self._separator, *self._picture, *self._separator]
        encoding, start = encode_user_text(self._tokenizer, caption), len(ids)
        return [*ids, *encoding.ids, *self._closing], encoding, start


def padded(rows: Sequence[Sequence[int]], filling: int) -> Tensor:
    """Rows of different length -> (B, S) int64, padded on the left."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[filling] * (longest - len(row)) + list(row) for row in rows], dtype=torch.int64)
