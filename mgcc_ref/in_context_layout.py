"""The contextual object grounding module (COGM), the paper's kind: `InContextLayout`.

The frozen language model reads a few worked examples, then writes the layout of the next picture, line by line,
while a grammar masks its logits: whatever the model would like to say, the answer is a layout. Needs a language
model large enough to learn in context; small ones take `LayoutHead`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mgcc_ref.layout_grammar import Box, GrammarState, LayoutGrammar, read_layout, write_layout
from mgcc_ref.model import MgccModel
from mgcc_ref.pipeline import GroundedObject
from mgcc_ref.token_trie import TokenTrie, token_texts
from mgcc_ref.tokens import encode_template, encode_user_text

Cache = Any  # whatever the language model carries from one call to the next


class LanguageModelStep(Protocol):
    """One pass of a causal language model, with its cache as a value."""

    def __call__(self, token_ids: Sequence[int], cache: Cache | None) -> tuple[NDArray[np.float32], Cache]:
        """Read new tokens on top of `cache` (None: nothing before). Returns logits (V,) of the last, and the cache."""


@dataclass(frozen=True)
class WorkedExample:
    caption: str
    objects: tuple[tuple[str, Box], ...]


EXAMPLES = (
    WorkedExample("A dog sits under a tree.", (("tree", (0.30, 0.08, 0.72, 0.60)), ("dog", (0.36, 0.62, 0.66, 0.92)))),
    WorkedExample(
        "The car is on the left and a house stands to its right. The sun shines in the top right corner.",
        (
            ("car", (0.06, 0.58, 0.40, 0.86)),
            ("house", (0.54, 0.40, 0.94, 0.86)),
            ("sun", (0.74, 0.04, 0.98, 0.28)),
        ),
    ),
    WorkedExample("There is a small ball in the middle.", (("ball", (0.38, 0.38, 0.62, 0.62)),)),
)

INSTRUCTION = (
    "Each caption is followed by the layout of its picture: a line for each object, with the object's box as left, "
    "top, right and bottom edge from 0.00 to 1.00, then END."
)


@dataclass(frozen=True)
class WrittenLayout:
    """What the model wrote, and how sure it was: one score a line, the geometric mean of its tokens' probabilities."""

    text: str
    scores: tuple[float, ...]


class InContextLayout:
    """Grounds a caption with a language model alone. `max_positions` is the length of the model's context."""

    def __init__(
        self,
        step: LanguageModelStep,
        tokenizer: Tokenizer,
        grammar: LayoutGrammar,
        *,
        max_positions: int,
        examples: Sequence[WorkedExample] = EXAMPLES,
    ) -> None:
        self.step, self.tokenizer, self.grammar = step, tokenizer, grammar
        self.max_positions, self.examples = max_positions, tuple(examples)
        self.trie = TokenTrie(token_texts(tokenizer))

    def ground(self, caption: str, cache: Cache | None = None, positions: int = 0) -> tuple[GroundedObject, ...]:
        """Objects of the picture that `caption` tells, at most the grammar's `max_lines`.

        `cache` of `positions` positions lets the model see what came before (a story with its images).
        ValueError if caption and examples leave no room for a line.
        """
        ids = self.prompt_ids(caption)
        grammar = self._grammar_for(self.max_positions - positions - len(ids))
        written = self.write(ids, cache, grammar)
        found: dict[tuple[str, Box], float] = {}
        for line, score in zip(read_layout(written.text), written.scores, strict=True):
            found.setdefault(line, score)  # small models repeat themselves; the same line again adds nothing
        return tuple(GroundedObject(label, box, score) for (label, box), score in found.items())

    def prompt_ids(self, caption: str) -> list[int]:
        """Instruction, worked examples and the caption, on one line so that it cannot pose as an example."""
        worked = "".join(f"Caption: {e.caption}\nLayout:\n{write_layout(e.objects)}\n\n" for e in self.examples)
        allowed = f" Objects: {', '.join(self.grammar.labels)}." if self.grammar.labels else ""
        opening = encode_template(self.tokenizer, f"{INSTRUCTION}{allowed}\n\n{worked}Caption:")
        told = encode_user_text(self.tokenizer, " " + " ".join(caption.split())).ids
        return opening + told + encode_template(self.tokenizer, "\nLayout:\n")

    def write(self, ids: Sequence[int], cache: Cache | None, grammar: LayoutGrammar) -> WrittenLayout:
        """Greedy decoding under the grammar. Ends after at most `max_lines` lines, whatever the logits are."""
        state, text = GrammarState(), ""
        log_probabilities: list[list[float]] = [[] for _ in range(grammar.max_lines + 1)]
        while not state.done:
            logits, cache = self.step(ids, cache)
            allowed = self.trie.allowed(grammar, state)
            chosen, log_probability = _best(logits, allowed)
            log_probabilities[state.lines].append(log_probability)
            text += self.trie.texts[chosen]
            following = grammar.advance_text(state, self.trie.texts[chosen])
            assert following is not None, "the mask let a token through that the grammar refuses"
            state, ids = following, [chosen]
        # A token may span lines; it counts for the one it begins in, and a line without any is as sure as can be.
        scores = tuple(math.exp(sum(p) / max(1, len(p))) for p in log_probabilities[: state.lines])
        return WrittenLayout(text, scores)

    def _grammar_for(self, room: int) -> LayoutGrammar:
        """The grammar with no more lines than surely fit: in the worst case each character is a token."""
        lines = min(self.grammar.max_lines, (room - len("END")) // self.grammar.longest_line)
        if lines < 1:
            raise ValueError(
                f"caption and examples leave {room} of {self.max_positions} positions; a line of a layout may need "
                f"{self.grammar.longest_line + len('END')}: shorten the caption"
            )
        return replace(self.grammar, max_lines=lines)


def _best(logits: NDArray[np.float32], allowed: NDArray[np.int64]) -> tuple[int, float]:
    """The likeliest allowed token, and its log probability among the allowed ones. NaN counts as least likely."""
    kept = np.nan_to_num(logits[allowed].astype(np.float64), nan=-1e9, posinf=1e9, neginf=-1e9)
    best = int(kept.argmax())
    return int(allowed[best]), float(-np.log(np.exp(kept - kept[best]).sum()))


class ModelStep:
    """A `LanguageModelStep` over the reference's own language model."""

    def __init__(self, model: MgccModel) -> None:
        self.model = model

    @torch.no_grad()
    def __call__(self, token_ids: Sequence[int], cache: Cache | None) -> tuple[NDArray[np.float32], Cache]:
        past = self.model.llm.empty_cache() if cache is None else cache
        embeddings = self.model.llm.embed(torch.tensor([token_ids]))
        logits, _, *present = self.model.llm(embeddings, *past)
        return logits[0, 0].float().numpy(), tuple(present)


def in_context_layout(model: MgccModel) -> InContextLayout:
    """The second grounder of a loaded model, with its label list where it has one."""
    grammar = LayoutGrammar(model.profile.max_objects, model.labels)
    return InContextLayout(ModelStep(model), model.tokenizer, grammar, max_positions=model.profile.max_context)
