"""The tokens of a vocabulary that may come next under a grammar over characters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mgcc_ref.in_context.layout_grammar import ALPHABET, GrammarState, LayoutGrammar
from mgcc_runtime.layout_text import may_be_a_token


@dataclass
class _Node:
    tokens: list[int] = field(default_factory=list)
    children: dict[str, _Node] = field(default_factory=dict)


class TokenTrie:
    """The vocabulary as a tree of characters: the cost of a mask grows with the allowed tokens, not the vocabulary.

    It holds only tokens made of the grammar's characters that `may_be_a_token`. ValueError unless each of these
    characters is a token by itself, so that any text the grammar can finish can also be finished in tokens.
    """

    def __init__(self, texts: Mapping[int, str]) -> None:
        self.texts = {
            token: text for token, text in texts.items() if text and ALPHABET.issuperset(text) and may_be_a_token(text)
        }
        missing = ALPHABET.difference(self.texts.values())
        if missing:
            raise ValueError(
                f"the tokenizer has no token of its own for {''.join(sorted(missing))!r}; "
                "constrained decoding needs one with byte or character fallback"
            )
        self._root = _Node()
        for token, text in self.texts.items():
            node = self._root
            for char in text:
                node = node.children.setdefault(char, _Node())
            node.tokens.append(token)
        self._known: dict[tuple[LayoutGrammar, GrammarState], NDArray[np.int64]] = {}

    def allowed(self, grammar: LayoutGrammar, state: GrammarState) -> NDArray[np.int64]:
        """Ids, ascending, of the tokens that may follow `state`; none if the layout is done."""
        key = (grammar, state)
        if key not in self._known:
            found: list[int] = []
            waiting = [(self._root, state)]
            while waiting:
                node, reached = waiting.pop()
                for char, child in node.children.items():
                    following = grammar.advance(reached, char)
                    if following is not None:
                        found += child.tokens
                        waiting.append((child, following))
            self._known[key] = np.array(sorted(found), dtype=np.int64)
        return self._known[key]


def token_texts(tokenizer: Tokenizer) -> dict[int, str]:
    """Token id -> the characters that it adds to a text, without special tokens.

    Each is decoded behind another token, since some decoders drop a space at the beginning of a text.
    """
    anchor = tokenizer.encode("a", add_special_tokens=False).ids
    start = tokenizer.decode(anchor)
    special = tokenizer.get_added_tokens_decoder()
    ids = [i for i in range(tokenizer.get_vocab_size()) if i not in special]
    decoded: Sequence[str] = tokenizer.decode_batch([[*anchor, i] for i in ids])
    return {i: text[len(start) :] for i, text in zip(ids, decoded, strict=True) if text.startswith(start)}
