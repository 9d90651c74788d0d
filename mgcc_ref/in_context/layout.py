"""The contextual object grounding module (COGM) as in the paper: `InContextLayout`.

The frozen language model reads a few worked examples, then writes the layout of the next picture, line by line,
while a grammar masks its logits, so that every output is a layout. It needs a language model large enough to learn
in context; profiles with a small one use `LayoutHead`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from mgcc_ref.grounded import GroundedObject
from mgcc_ref.in_context.layout_grammar import GrammarState, LayoutGrammar
from mgcc_ref.in_context.token_trie import TokenTrie, token_texts
from mgcc_ref.model import MgccModel
from mgcc_ref.tokens import encode_template, encode_user_text
from mgcc_runtime.layout_text import (
    CAPTION_END,
    DEFAULT_PROMPT,
    END,
    Edges,
    LayoutPrompt,
    beginning,
    one_line,
    read_layout,
)

Cache = Any  # the language model's state between two calls
Floats = NDArray[np.float32]
CaptionPart: TypeAlias = "str | Floats"  # a text, or an image's visual tokens (k, D)


class LanguageModelStep(Protocol):
    """One pass of a causal language model; the cache is an argument and a result."""

    def __call__(self, tokens: Sequence[int] | Floats, cache: Cache | None) -> tuple[Floats, Cache]:
        """Read token ids, or visual tokens (k, D), on top of `cache` (None: nothing before).

        Returns logits (V,) of the last position, and the cache.
        """


@dataclass(frozen=True)
class WrittenLayout:
    """The model's text, with one score a line: the geometric mean of its tokens' probabilities."""

    tokens: tuple[int, ...]
    text: str
    scores: tuple[float, ...]

    def objects(self) -> tuple[GroundedObject, ...]:
        """The objects of the text, equal lines once: small models repeat lines."""
        found: dict[tuple[str, Edges], float] = {}
        for line, score in zip(read_layout(self.text), self.scores, strict=True):
            found.setdefault(line, score)
        return tuple(GroundedObject(label, box, score) for (label, box), score in found.items())


@dataclass(frozen=True)
class Marks:
    """Token ids around captions: those that begin a text, and those before and after an image."""

    beginning: tuple[int, ...] = ()
    image_open: tuple[int, ...] = ()
    image_close: tuple[int, ...] = ()


class InContextLayout:
    """Grounds a caption with a language model alone. `max_positions` is the length of the model's context."""

    def __init__(
        self,
        step: LanguageModelStep,
        tokenizer: Tokenizer,
        grammar: LayoutGrammar,
        *,
        max_positions: int,
        prompt: LayoutPrompt = DEFAULT_PROMPT,
        marks: Marks = Marks(),
    ) -> None:
        self.step, self.tokenizer, self.grammar = step, tokenizer, grammar
        self.max_positions, self.prompt, self.marks = max_positions, prompt, marks
        self.trie = TokenTrie(token_texts(tokenizer))

    def ground(self, caption: str | Sequence[CaptionPart]) -> tuple[GroundedObject, ...]:
        """Objects of the picture that `caption` describes, at most the grammar's `max_lines`; see `layout`."""
        return self.layout(caption).objects()

    def layout(self, caption: str | Sequence[CaptionPart]) -> WrittenLayout:
        """Write the layout of `caption`: a text, or texts and images' visual tokens in order. ValueError if prompt and
        caption leave no room for a line in the context.
        """
        parts = [caption] if isinstance(caption, str) else caption
        return self.write(self.prompt_runs(parts), replace(self.grammar, max_lines=self.lines(parts)))

    def prompt_runs(self, caption: Sequence[CaptionPart]) -> list[list[int] | Floats]:
        """Instruction, worked examples and caption as runs of ids and visual tokens. Each text of the caption is one
        line, so that it cannot imitate an example."""
        marks, runs = self.marks, list[list[int] | Floats]()

        def add(ids: Sequence[int]) -> None:
            if runs and isinstance(runs[-1], list):
                runs[-1].extend(ids)
            elif ids:
                runs.append([*ids])

        add(marks.beginning)
        add(self._plain(self.prompt.opening(self.grammar.labels)))
        for part in caption:
            if isinstance(part, str):
                add(self._plain(one_line(part)))
                continue
            add(marks.image_open)
            runs.append(part)
            add(marks.image_close)
        add(self._plain(CAPTION_END))
        return runs

    def _plain(self, text: str) -> list[int]:
        return encode_user_text(self.tokenizer, text).ids

    def write(self, runs: Sequence[Sequence[int] | Floats], grammar: LayoutGrammar) -> WrittenLayout:
        """Greedy decoding under the grammar. It ends after at most `max_lines` lines, whatever the logits are."""
        cache: Cache | None = None
        for run in runs:
            logits, cache = self.step(run, cache)
        state, text, tokens = GrammarState(), "", list[int]()
        log_probabilities: list[list[float]] = [[] for _ in range(grammar.max_lines + 1)]
        while True:
            chosen, log_probability = _best(logits, self.trie.allowed(grammar, state))
            log_probabilities[state.lines].append(log_probability)
            tokens.append(chosen)
            text += self.trie.texts[chosen]
            following = grammar.advance_text(state, self.trie.texts[chosen])
            assert following is not None, "the mask let a token through that the grammar refuses"
            if (state := following).done:
                break
            logits, cache = self.step([chosen], cache)
        # A token may span lines; it counts for the line it begins in. A line in which none begins has score 1.
        scores = tuple(math.exp(sum(p) / max(1, len(p))) for p in log_probabilities[: state.lines])
        return WrittenLayout(tuple(tokens), text, scores)

    def lines(self, caption: Sequence[CaptionPart]) -> int:
        """The number of lines that fit behind a caption if each character is a token; ValueError if none does."""
        room = self.max_positions - sum(map(len, self.prompt_runs(caption)))
        lines = min(self.grammar.max_lines, (room - len(END)) // self.grammar.longest_line)
        if lines < 1:
            raise ValueError(
                f"caption and examples leave {room} of {self.max_positions} positions; a line of a layout may need "
                f"{self.grammar.longest_line + len(END)}: shorten the caption"
            )
        return lines


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
    def __call__(self, tokens: Sequence[int] | Floats, cache: Cache | None) -> tuple[Floats, Cache]:
        llm = self.model.llm
        past = llm.empty_cache() if cache is None else cache
        visual = isinstance(tokens, np.ndarray)
        embeddings = torch.from_numpy(tokens)[None] if visual else llm.embed(torch.tensor([[*tokens]]))
        logits, _, *present = llm(embeddings, *past)
        return logits[0, 0].float().numpy(), tuple(present)


def in_context_layout(model: MgccModel, prompt: LayoutPrompt = DEFAULT_PROMPT) -> InContextLayout:
    """The in-context grounder of a loaded model, with its label list if it has one.

    ValueError if its tokenizer cannot write layouts.
    """
    template, tokenizer = model.template, model.tokenizer
    marks = Marks(
        *(tuple(encode_template(tokenizer, text))
          for text in (beginning(template), template.image_open, template.image_close))
    )  # fmt: skip
    return InContextLayout(
        ModelStep(model), tokenizer, LayoutGrammar(model.profile.max_objects, model.labels),
        max_positions=model.profile.max_context, prompt=prompt, marks=marks,
    )  # fmt: skip
