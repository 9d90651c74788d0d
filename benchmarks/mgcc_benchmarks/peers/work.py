"""The inputs, in files that both sides read: a held-back story, its words as tokens, the UNet's golden data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mgcc_ref.story.bench import BenchItem, Suite, bench_item
from mgcc_ref.story.stories import Setting
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.errors import OptionError
from mgcc_runtime.measure.golden import request_golden, stage_golden
from mgcc_runtime.prompt import PromptBuilder


@dataclass(frozen=True)
class Amounts:
    """The amounts of work; the project's aims are stated for the defaults."""

    words: int = 24  # of text in a turn
    prompt_tokens: int = 100  # that the language model reads
    next_tokens: int = 32  # read one by one after the prompt
    dialogues: int = 10
    story: int = 0  # the number of StoryBench's item
    seed: int = 0


def write_work(folder: Path, bundle: Bundle, amounts: Amounts) -> dict[str, Any]:
    """Write all inputs; returns their description for the report."""
    item = bench_item(Suite.STORIES, Setting.CAPTIONS_5_IMAGES_4, amounts.story)
    texts, images = _write_story(folder, item)
    golden = request_golden(bundle)
    options = {
        "seed": amounts.seed, "words": amounts.words, "dialogues": amounts.dialogues, "dialogue_words": golden.words,
        "boxes": [
            {"label": label, "xyxy": edges} for label, edges in zip(golden.labels, golden.boxes.tolist(), strict=True)
        ],
    }  # fmt: skip
    (folder / "options.json").write_text(json.dumps(options), encoding="utf-8")
    count = amounts.prompt_tokens + amounts.next_tokens
    if count > (room := bundle.manifest.dimensions.context):
        raise OptionError(f"{count} tokens are asked for, the context holds {room}; ask for fewer")
    ids = _story_ids(bundle, count)
    np.savez(folder / "llm.npz", prompt_ids=ids[: amounts.prompt_tokens], next_ids=ids[amounts.prompt_tokens :])
    np.savez(folder / "unet.npz", allow_pickle=False, **stage_golden(bundle, "unet").inputs)
    return {
        "texts": texts, "images": images, "words": amounts.words, "steps": bundle.manifest.default_steps,
        "prompt_tokens": amounts.prompt_tokens, "next_tokens": amounts.next_tokens, "dialogues": amounts.dialogues,
        "dialogue_words": options["dialogue_words"],
    }  # fmt: skip


def _write_story(folder: Path, item: BenchItem) -> tuple[int, int]:
    """Write story.json and its pictures; returns the numbers of texts and images."""
    parts: list[dict[str, str]] = []
    for i, part in enumerate(item.inputs()):
        if isinstance(part, Image.Image):
            part.save(folder / f"{i}.png")
            parts.append({"image": f"{i}.png"})
        else:
            parts.append({"text": part})
    (folder / "story.json").write_text(json.dumps({"parts": parts}), encoding="utf-8")
    texts = len(item.texts)
    return texts, len(parts) - texts


def _story_ids(bundle: Bundle, count: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The first `count` tokens of a request with held-back stories, its template's opening first.

    A language model's values at its first position are hundreds of times as large as at others. The token there
    matters to 8-bit activations, and in a request it is always the template's.
    """
    builder, setting = PromptBuilder(bundle), Setting.CAPTIONS_5
    texts: list[str] = []
    ids, number = np.empty(0, np.int64), 0
    while len(ids) < count:
        texts += bench_item(Suite.STORIES, setting, number).texts
        ids, number = builder.build(texts).ids, number + 1
    return ids[:count]
