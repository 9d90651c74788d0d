"""Passes requests through the frozen language model, once and in batches: features and caches to train heads on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mgcc_ref.model import MgccModel
from mgcc_ref.prompting import Part, closing_ids, embed_prompt, preprocess, prompt_ids
from mgcc_ref.train.errors import TrainingError
from mgcc_ref.train.loop import TrainingPrecision, frozen_arithmetic
from mgcc_ref.train.requests import Conversation

log = logging.getLogger("mgcc.train")


@dataclass(frozen=True)
class Contexts:
    """A batch of read requests, padded on the left (rotary positions are relative; OPT's skip the padding)."""

    features: Tensor  # (B, S, D_f)
    mask: Tensor  # (B, S) bool
    cache: tuple[Tensor, ...]  # 2 x feature depth of (B, H_kv, S, d)


def left_padding_mask(mask: Tensor, new: int) -> Tensor:
    """Attention mask (B, 1, new, S') for the last `new` positions of mask (B, S'): causal, without padding.

    A padding position attends to itself alone, so that its softmax stays finite.
    """
    total = mask.shape[1]
    causal = torch.ones(total, total, dtype=torch.bool, device=mask.device).tril()
    own = torch.eye(total, dtype=torch.bool, device=mask.device)
    return ((causal & mask[:, None, None, :]) | own)[:, :, total - new :]


def padded_positions(mask: Tensor) -> Tensor:
    """Positions in requests padded on the left, counted from each request's start: mask (B, S) -> (B, S) int64.

    OPT's learned positions are absolute, so padding would shift them.
    """
    return (mask.long().cumsum(dim=1) - 1).clamp_min(0)


def read_requests(model: MgccModel, requests: Sequence[Sequence[Part]]) -> Contexts:
    """Pass several requests through vision tower and language model at once."""
    embedded = []
    for parts in requests:
        images = [part for part in parts if not isinstance(part, str)]
        visual = model.vision_encoder(torch.cat([preprocess(i, model) for i in images])) if images else None
        embedded.append(embed_prompt(model, prompt_ids(model, parts), visual)[0])
    longest = max(len(e) for e in embedded)
    embeds = torch.stack([torch.nn.functional.pad(e, (0, 0, longest - len(e), 0)) for e in embedded])
    mask = torch.stack([torch.arange(longest) >= longest - len(e) for e in embedded])
    cache = model.llm.empty_cache(len(requests))
    positions = padded_positions(mask) if model.profile.llm.family == "opt" else None
    features, present = model.llm.context_features(embeds, cache, left_padding_mask(mask, longest), positions)
    return Contexts(features, mask, tuple(present))


@dataclass(frozen=True)
class Reading:
    """Hidden states of a conversation: rows of its parts, then of the template's closing pieces once a point.

    The language model is causal, so positions before a point have the same hidden states in every request that
    contains them: one pass reads a conversation for all its points. Only the closing pieces of the template
    differ; each copy attends to the parts before its own point.
    """

    rows: np.ndarray  # (S + points x closing, D_f) float16
    ends: tuple[int, ...]  # rows before each point
    closing: int  # rows of the template's closing pieces

    def __post_init__(self) -> None:
        expected = self.ends[-1] + len(self.ends) * self.closing
        if len(self.rows) != expected:
            raise TrainingError(
                f"a reading has {len(self.rows)} rows where its conversation takes {expected}: it was read from "
                "another text; move the folder of features away, and they are read anew"
            )

    def context(self, point: int) -> np.ndarray:
        """Context features of the request at `points[point]`: (S_point, D_f) float16."""
        start = len(self.rows) - (len(self.ends) - point) * self.closing
        return np.concatenate([self.rows[: self.ends[point]], self.rows[start : start + self.closing]])


def point_ends(model: MgccModel, conversation: Conversation) -> tuple[int, ...]:
    """For each point, the length of its request without the closing pieces."""
    closing = len(closing_ids(model))
    return tuple(len(prompt_ids(model, conversation.parts[: p.parts])) - closing for p in conversation.points)


def _embedded(model: MgccModel, conversation: Conversation) -> tuple[Tensor, tuple[int, ...], int]:
    """The language model's input (1, S + points x closing, D), the points' ends, and the length of the closing."""
    parts = conversation.parts[: conversation.points[-1].parts]  # no request reads the parts after the last point
    ids, closing, ends = prompt_ids(model, parts), closing_ids(model), point_ends(model, conversation)
    images = [part for part in parts if not isinstance(part, str)]
    visual = model.vision_encoder(torch.cat([preprocess(i, model) for i in images])) if images else None
    embeds = embed_prompt(model, ids[: len(ids) - len(closing)] + closing * len(ends), visual)
    return embeds, ends, len(closing)


@torch.no_grad()
def embed_conversation(model: MgccModel, conversation: Conversation) -> np.ndarray:
    """The rows (rows, D) of a `Reading` with layer 0 alone, which needs no pass of the language model."""
    return _embedded(model, conversation)[0][0].float().half().numpy()


@torch.no_grad()
def read_conversation(model: MgccModel, conversation: Conversation) -> np.ndarray:
    """Pass a conversation through vision tower and language model: the rows of its `Reading`."""
    embeds, ends, extra = _embedded(model, conversation)
    total = embeds.shape[1]
    length = total - extra * len(ends)
    mask = torch.zeros(total, total, dtype=torch.bool)
    mask[:length, :length] = torch.ones(length, length, dtype=torch.bool).tril()
    positions = torch.arange(total)
    for i, end in enumerate(ends):
        own = slice(length + i * extra, length + (i + 1) * extra)
        mask[own, :end] = True
        mask[own, own] = torch.ones(extra, extra, dtype=torch.bool).tril()
        positions[own] = end + torch.arange(extra)
    features, _ = model.llm.context_features(embeds, model.llm.empty_cache(), mask, positions)
    return features[0].float().clamp(-6e4, 6e4).half().numpy()  # within float16's range


#: Largest relative L2 difference of two readings of one conversation: bf16 differs from fp32 by 0.7 %.
_STALE = 0.05


class FeatureStore:
    """Readings of many conversations on disk, float16, each at its own length; written once, then memory-mapped.

    After a kill, writing resumes after the finished shards.
    """

    SHARD = 100

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count

    def build(self, rows_of: Callable[[int], np.ndarray], precision: TrainingPrecision) -> None:
        """Read the missing ones of `count` conversations; `rows_of` reads one.

        TrainingError if the stored readings are of other conversations or another model: the first is read again.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._shard(0).exists():
            with frozen_arithmetic(precision):
                self._check(rows_of(0))
        missing = [s for s in range(0, self.count, self.SHARD) if not self._shard(s).exists()]
        started = time.monotonic()
        for done, start in enumerate(missing):
            with frozen_arithmetic(precision):
                rows = [rows_of(i) for i in range(start, start + self.SHARD)]
            temporary = self.folder / "shard.tmp.npy"
            np.save(self._lengths(start), np.array([len(r) for r in rows]))
            np.save(temporary, np.concatenate(rows))
            temporary.replace(self._shard(start))
            left = (time.monotonic() - started) / (done + 1) * (len(missing) - done - 1)
            log.info("features %d/%d  %.1f min left", start + self.SHARD, self.count, left / 60)

    def _check(self, now: np.ndarray) -> None:
        kept = np.load(self._shard(0), mmap_mode="r")[: int(np.load(self._lengths(0))[0])]
        size = float(np.linalg.norm(now.astype(np.float32)))
        if kept.shape != now.shape or float(np.linalg.norm(kept.astype(np.float32) - now)) > _STALE * size:
            raise TrainingError(
                f"{self.folder} holds readings of other conversations, or by another model, than this run's; "
                "move the folder away, and they are read anew"
            )

    def _shard(self, start: int) -> Path:
        return self.folder / f"features-{start:06d}.npy"

    def _lengths(self, start: int) -> Path:
        return self.folder / f"lengths-{start:06d}.npy"

    def load(self) -> list[np.ndarray]:
        """Every conversation's rows (S_i, D_f) float16, memory-mapped."""
        views: list[np.ndarray] = []
        for start in range(0, self.count, self.SHARD):
            data = np.load(self._shard(start), mmap_mode="r")
            ends = np.cumsum(np.load(self._lengths(start)))
            views += [data[e - n : e] for e, n in zip(ends, np.diff(ends, prepend=0), strict=True)]
        return views[: self.count]


def pad_features(views: Sequence[np.ndarray], width: int) -> tuple[Tensor, Tensor]:
    """Features of different lengths -> (B, S, width) float32 and mask (B, S), padded on the left.

    Views with only the first layers' features are zero in the others.
    """
    longest = max(len(v) for v in views)
    out = torch.zeros(len(views), longest, width)
    mask = torch.zeros(len(views), longest, dtype=torch.bool)
    for i, view in enumerate(views):
        out[i, longest - len(view) :, : view.shape[1]] = torch.from_numpy(np.asarray(view)).float()
        mask[i, longest - len(view) :] = True
    return out, mask
