"""How well a language model's graph predicts a text: the measure of its weights' precision.

The stage gives logits of the last position alone, so texts are fed token by token with the cache: exactly the decode
path whose precision is in question.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mgcc_calibration.errors import DataError
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import present_names, stage
from mgcc_runtime.engines import EngineOptions, open_session
from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.names import EngineName
from mgcc_runtime.prompt import PromptBuilder


@dataclass(frozen=True)
class TextScore:
    """Scores of one graph on one set of texts."""

    perplexity: float
    tokens: int  # that were predicted
    greedy: tuple[int, ...]  # the likeliest token at each of them

    def agreement(self, other: TextScore) -> float:
        """Share of positions at which both find the same token likeliest."""
        same = sum(a == b for a, b in zip(self.greedy, other.greedy, strict=True))
        return same / len(self.greedy)


def story_texts(count: int, seed: int) -> list[str]:
    """Captions of `count` StoryWorld stories with phrasings that calibration never sees, a story a text."""
    from mgcc_ref.story.stories import make_story
    from mgcc_ref.story.wording.phrases import Split

    return [" ".join(make_story(seed + i, Split.VALIDATION).captions) for i in range(count)]


@dataclass(frozen=True)
class Wording:
    """What language models are to predict, and how."""

    texts: Sequence[str]
    most: int = 512  # tokens in all
    threads: int = 1  # of ONNX Runtime


def score_texts(bundle: Bundle, path: Path, wording: Wording, engine: str = EngineName.ONNXRUNTIME) -> TextScore:
    """Perplexity of the llm graph at `path` on some texts; DataError if they hold nothing to predict.

    Tokenizer and embeddings are the bundle's. Each text starts from an empty cache; its first token is given.
    """
    dimensions = bundle.manifest.dimensions
    prompts, keep = PromptBuilder(bundle), present_names(dimensions.layers)
    session = open_session(engine, path, stage(dimensions, "llm"), EngineOptions(wording.threads))
    loss, greedy = 0.0, list[int]()
    try:
        for text in wording.texts:
            ids = np.array(prompts.tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
            cache = KvCache.empty(dimensions)
            for given, wanted in itertools.pairwise(ids[: dimensions.context]):
                if len(greedy) == wording.most:
                    break
                feeds = {"inputs_embeds": prompts.embed(np.array([given])), **cache.feeds()}
                outputs = session.run(feeds, keep)
                cache = cache.extended(outputs, 1)
                logits = outputs["logits"][0, 0].copy()
                logits[list(bundle.manifest.tokens.image)] = -np.inf  # whether to draw is no matter of the words
                loss += _surprise(logits, int(wanted))
                greedy.append(int(np.argmax(logits)))
    finally:
        session.close()
    if not greedy:
        raise DataError(
            f"{len(wording.texts)} texts hold no two tokens in a row, expected a text to predict; give a longer one"
        )
    return TextScore(math.exp(loss / len(greedy)), len(greedy), tuple(greedy))


def _surprise(logits: NDArray[np.float32], wanted: int) -> float:
    """-log p(wanted), in nats."""
    values = logits.astype(np.float64)
    highest = float(values.max())
    return float(highest + np.log(np.exp(values - highest).sum()) - values[wanted])
