"""Greedy text decoding with a repetition penalty, on the functional cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mgcc_ref.model import MgccModel
from mgcc_runtime.contract import most_tokens


@dataclass(frozen=True)
class TextResult:
    text: str
    token_ids: tuple[int, ...]


def penalise(logits: Tensor, seen: list[int], penalty: float) -> Tensor:
    """Divide positive and multiply negative logits (V,) of the tokens in `seen` (CTRL, arXiv 1909.05858)."""
    if penalty == 1.0 or not seen:
        return logits
    logits = logits.clone()
    index = torch.tensor(sorted(set(seen)))
    picked = logits[index]
    logits[index] = torch.where(picked > 0, picked / penalty, picked * penalty)
    return logits


def decode_text(
    model: MgccModel, logits: Tensor, cache: tuple[Tensor, ...], *, words: int, repetition_penalty: float
) -> TextResult:
    """Continue from `logits` (V,) until an end token, `words` words, `most_tokens(words)` or the context's end."""
    ids: list[int] = []
    ends = set(model.end_token_ids)
    plain = model.profile.llm.vocabulary  # the [IMG] tokens behind it are not text
    text = ""
    while len(ids) < most_tokens(words) and cache[0].shape[2] + 1 < model.profile.max_context:
        token = int(penalise(logits[:plain], ids, repetition_penalty).argmax())
        if token in ends:
            break
        ids.append(token)
        text = model.tokenizer.decode(ids)
        if len(text.split()) > words:  # a word is complete only when the next one begins
            ids.pop()
            text = model.tokenizer.decode(ids)
            break
        with torch.no_grad():
            out = model.llm(model.llm.embed(torch.tensor([[token]])), *cache)
        logits, cache = out[0][0, 0], tuple(out[2:])
    return TextResult(text.strip(), tuple(ids))
