"""Phrase embeddings of labels that a user gives with boxes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mgcc_runtime.bundle.folder import REBUILD, Bundle
from mgcc_runtime.contract import STAND_IN
from mgcc_runtime.errors import BundleError, LayoutError
from mgcc_runtime.files import native_path
from mgcc_runtime.layout import Box, Labels, Layout, bare_views
from mgcc_runtime.names import PHRASE_TOKENIZER

EncodePhrase = Callable[[NDArray[np.int64]], NDArray[np.float32]]  # input_ids (1, N_c) -> (D_p,)


class PhraseBook:
    """Looks labels up in the bundle's list and, where the bundle has a phrase encoder, encodes the others."""

    def __init__(self, bundle: Bundle, labels: Labels, encode: EncodePhrase | None) -> None:
        self._labels = labels
        self._encode = encode
        self._dimensions = bundle.manifest.dimensions
        self._tokenizer: Tokenizer | None = None
        if encode is not None:
            path = bundle.file(PHRASE_TOKENIZER)
            try:
                self._tokenizer = Tokenizer.from_file(native_path(path))
            except Exception as error:  # noqa: BLE001 (the tokenizers library raises bare Exception)
                raise BundleError(f"{path} is not a tokenizer ({error}); {REBUILD}") from None

    def check(self, items: Sequence[Box], known: Mapping[str, str] = MappingProxyType({})) -> None:
        """LayoutError for too many boxes or for a label that this bundle cannot draw.

        `known`: labels by the boxes' ids whose phrase embeddings a scene has.
        """
        limit = self._dimensions.objects
        if len(items) > limit:
            raise LayoutError(f"{len(items)} boxes were given, at most {limit} fit this bundle; leave some out")
        for item in items:
            if known.get(item.id) == item.label:
                continue
            if item.label not in self._labels.names and self._encode is None:
                hint = self._labels.suggestion(item.label)
                raise LayoutError(f"label {item.label!r} is not one this bundle can draw; {hint}")

    def views(self, layout: Layout) -> tuple[Layout, ...]:
        """What the UNet is told of a layout: that itself, or of one without things on a layout map its `bare_views`.

        GLIGEN's gates have learned from pictures without boxes.
        """
        if layout.items or self._dimensions.gated:
            return (layout,)
        label = self._labels.names[0] if self._labels.names else STAND_IN
        known = bool(self._labels.names) or self._encode is not None
        phrase = self.embed(label) if known else np.zeros(self._dimensions.phrase, np.float32)
        return bare_views(phrase, self._dimensions)

    def embed(self, label: str) -> NDArray[np.float32]:
        """Of the list or by the phrase encoder, (D_p,); LayoutError for a label that this bundle cannot draw."""
        if label in self._labels.names:
            found: NDArray[np.float32] = self._labels.embeddings[self._labels.names.index(label)]
            return found
        if self._encode is None or self._tokenizer is None:
            raise LayoutError(f"label {label!r} is not one this bundle can draw; {self._labels.suggestion(label)}")
        # the file itself says how to pad and to cut, so the ids are N_c long
        return self._encode(np.array([self._tokenizer.encode(label).ids], np.int64))
