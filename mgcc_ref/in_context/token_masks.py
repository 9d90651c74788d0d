"""All token masks that writing a layout can need, computed in advance: a device looks them up, without a grammar."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mgcc_ref.in_context.layout_grammar import ALPHABET, GrammarState, LayoutGrammar
from mgcc_ref.in_context.token_trie import TokenTrie
from mgcc_runtime.layout_text import (
    COORDINATE_ENDS,
    COORDINATES,
    LABEL_END,
    LINES_THAT_COUNT,
    mask_key,
)


def compile_masks(grammar: LayoutGrammar, trie: TokenTrie) -> dict[str, NDArray[np.int64]]:
    """`mask_key` -> ids of the tokens that may come next, ascending."""
    few, open_labels = replace(grammar, max_lines=LINES_THAT_COUNT), not grammar.labels
    found: dict[str, NDArray[np.int64]] = {}
    for left in range(LINES_THAT_COUNT + 1):
        start = GrammarState(LINES_THAT_COUNT - left)
        for line in (*_labels(few, start), *(_boxes(few) if left else ())):
            key = mask_key(line, left, open_labels=open_labels)
            if key not in found and (state := few.advance_text(start, line)) is not None and not state.done:
                found[key] = trie.allowed(few, state)
    return found


def _labels(grammar: LayoutGrammar, start: GrammarState) -> Iterator[str]:
    """Beginnings of lines up to the bracket, at least one for each key."""
    known, waiting = {""}, [""]
    while waiting:
        line = waiting.pop()
        yield line
        for char in sorted(ALPHABET):
            longer = line + char
            key = mask_key(longer, 1, open_labels=not grammar.labels)
            if key in known or "[" in longer or grammar.advance_text(start, longer) is None:
                continue
            known.add(key)
            waiting.append(longer)


def _boxes(grammar: LayoutGrammar) -> Iterator[str]:
    """Beginnings of lines from the bracket on: for each coordinate, each value of the coordinate that bounds it."""
    opening = (grammar.labels[0] if grammar.labels else "a") + LABEL_END
    first, after, _, last = COORDINATE_ENDS
    lowest, highest = COORDINATES[0], COORDINATES[-1]
    for number in range(101 - grammar.min_side):
        low, high = COORDINATES[number], COORDINATES[number + grammar.min_side :]
        yield from _beginnings(opening, low + first)
        yield from _beginnings(f"{opening}{lowest}{first}", low + after)
        yield from _beginnings(f"{opening}{low}{first}", lowest + after)
        for value in high:
            yield from _beginnings(f"{opening}{low}{first}{lowest}{after}", value + after)
            yield from _beginnings(f"{opening}{lowest}{first}{low}{after}{highest}{after}", value + last[0])
        yield from _beginnings(f"{opening}{lowest}{first}{low}{after}", highest + after)


def _beginnings(before: str, text: str) -> Iterator[str]:
    return (before + text[:end] for end in range(len(text) + 1))
