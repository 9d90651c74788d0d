"""The compiled masks are those of the automaton at every place, whatever the vocabulary; packed and unpacked, too."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from mgcc_ref.in_context.layout_grammar import GrammarState, LayoutGrammar
from mgcc_ref.in_context.token_masks import compile_masks
from mgcc_ref.in_context.token_trie import TokenTrie
from mgcc_runtime.in_context.files import Ids, Masks, pack_masks, unpack_masks
from mgcc_runtime.layout_text import mask_key, may_be_a_token
from tests.ref.in_context.test_layout import GRAMMARS, tokenizer, trie

__all__ = ["tokenizer", "trie"]
_MADE: dict[LayoutGrammar, dict[str, Ids]] = {}


def masks_of(grammar: LayoutGrammar, trie: TokenTrie) -> dict[str, Ids]:
    if grammar not in _MADE:
        _MADE[grammar] = compile_masks(grammar, trie)
    return _MADE[grammar]


@GRAMMARS
def test_a_walk_meets_the_automatons_mask_at_every_place(grammar: LayoutGrammar, trie: TokenTrie) -> None:
    """Whole layouts of up to three lines, by long tokens and by single characters."""
    masks = Masks(masks_of(grammar, trie), open_labels=not grammar.labels)
    for seed in range(12):
        rng, state, line, left = random.Random(seed), GrammarState(), "", grammar.max_lines
        while not state.done:
            wanted = trie.allowed(grammar, state)
            np.testing.assert_array_equal(masks.allowed(line, left), wanted, err_msg=f"{line!r}, {left} lines left")
            longest = max(wanted.tolist(), key=lambda i: len(trie.texts[i]))
            piece = trie.texts[rng.choice([longest, *wanted.tolist()])]
            state = grammar.advance_text(state, piece)
            *finished, line = (line + piece).split("\n")
            left -= len(finished)


def test_two_coordinates_in_a_token_are_refused() -> None:
    """The known mistake: with such tokens the mask of a place depends on more than its key says."""
    assert not may_be_a_token("0.10, 0") and not may_be_a_token("5, 0.2") and not may_be_a_token("1,\n0")
    assert all(map(may_be_a_token, ("36", ", 0", "]\nball: [0.", ", ", "0.10, ")))
    grammar = LayoutGrammar(2)
    # beginnings of one key, which such a token tells apart
    for x1, ends in ((10, True), (90, False)):
        there = grammar.advance_text(GrammarState(0, 2, "0.1", (x1,)), "0, 0.2")
        assert (there is not None) is ends
    assert mask_key("a: [0.10, 0.1", 2, open_labels=True) == mask_key("a: [0.90, 0.1", 2, open_labels=True)


def test_bounds_and_lines_left_are_part_of_the_key() -> None:
    """The known mistakes of a key: a bound, the next coordinate's bound, or the last line left out."""

    def same(one: str, other: str, left: int = 2, others_left: int = 2) -> bool:
        return mask_key(one, left, open_labels=True) == mask_key(other, others_left, open_labels=True)

    assert same("cat: [0.10, 0.2", "dog: [0.70, 0.2") and not same("a: [0.10, 0.20, 0.", "a: [0.11, 0.20, 0.")
    assert same("a: [0.10, 0.20, 0.3", "a: [0.10, 0.60, 0.3")
    assert not same("a: [0.10, 0.20,", "a: [0.11, 0.20,") and not same("a: [0.1, 0.20, 0.30", "a: [0.1, 0.21, 0.30")
    assert not same("a: [0.10, 0.20, 0.30, 0.4", "a: [0.10, 0.21, 0.30, 0.4")
    whole = "a: [0.10, 0.10, 0.90, 0.90]"
    assert not same("", "", 0, 1) and same("", "", 1, 7) and not same(whole, whole, 1, 2)
    assert same("cat", "dog") and not same("cat", "cats") and not same("a cat", "acats")


@GRAMMARS
def test_packed_masks_are_the_same(grammar: LayoutGrammar, trie: TokenTrie, tmp_path: Path) -> None:
    masks = masks_of(grammar, trie)
    (tmp_path / "masks.npz").write_bytes(pack_masks(masks))
    with np.load(tmp_path / "masks.npz", allow_pickle=False) as file:
        again = unpack_masks(dict(file))
    assert again.keys() == masks.keys()
    assert all(np.array_equal(again[key], ids) for key, ids in masks.items())
