"""Writing text with the language model, token by token."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mgcc_runtime.bundle.manifest import Tokens
from mgcc_runtime.contract import most_tokens
from mgcc_runtime.decoding import choose_token, text_generator
from mgcc_runtime.prompt import PromptBuilder
from mgcc_runtime.request import Request
from mgcc_runtime.stages import LlmStep, Stages
from mgcc_runtime.stopwatch import Stopwatch

_UNFINISHED = "\ufffd"  # what a tokenizer gives for the first bytes of a character


@dataclass(frozen=True)
class Written:
    """The text so far, and the language model's state after it."""

    text: str
    tokens: tuple[int, ...]


def write_text(
    stages: Stages, prompts: PromptBuilder, tokens: Tokens, start: LlmStep, request: Request, watch: Stopwatch
) -> Iterator[Written]:
    """Go on from `start` until an end token or the request's words; yields whenever the text grew.

    A word is complete only when the next one begins: that token is dropped again. The context's end and
    `most_tokens(words)` end it, too.
    """
    words, generator = request.words, text_generator(request.seed)
    written: list[int] = []
    state, shown = start, ""
    while len(written) < most_tokens(words) and state.cache.length + 1 < stages.dimensions.context:
        token = choose_token(state.logits, written, tokens.image, request.text, generator)
        if token in tokens.end:
            break
        text = prompts.decode([*written, token])
        if len(text.split()) > words:
            break
        written.append(token)
        if (visible := text.strip()) != shown and not visible.endswith(_UNFINISHED):
            yield Written(visible, tuple(written))
            shown = visible
        with watch.measure("llm_decode"):
            state = stages.read(prompts.embed(np.array([token])), state.cache)
    yield Written(prompts.decode(written).strip(), tuple(written))
