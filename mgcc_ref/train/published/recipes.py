"""The published settings as defaults of the steps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from mgcc_ref.train.loop import LoopOptions, TrainingPrecision


@dataclass(frozen=True)
class Recipe:
    """A step's default training. `batch` counts samples over all processes."""

    batch: int
    options: LoopOptions
    held_back: int = 256
    at_once: int | None = None  # samples in memory of a process when it is evaluated; None: the batch

    def chunks(self, indices: Sequence[int]) -> Iterator[Sequence[int]]:
        """Held-back samples in pieces that fit into memory."""
        size = self.at_once or self.batch
        return (indices[start : start + size] for start in range(0, len(indices), size))

    def of_length(self, steps: int | None) -> LoopOptions:
        """The options for another number of steps: warm-up and decays keep their shares of the run."""
        whole = self.options
        if steps is None:
            return whole
        share, tenth = steps / whole.total_steps, whole.tenth_every_steps
        return replace(
            whole, total_steps=steps, warmup_steps=round(share * whole.warmup_steps),
            tenth_every_steps=None if tenth is None else max(1, round(share * tenth)),
        )  # fmt: skip


#: GILL's (arXiv 2305.17216, its published code): ten epochs of 2,000 steps of 200, a tenth of the rate after five.
#: Its two retrieval losses are left out, since nothing is retrieved here.
ALIGN = Recipe(
    200,
    LoopOptions(
        total_steps=20_000, learning_rate=1e-3, warmup_steps=2_000, tenth_every_steps=10_000, betas=(0.9, 0.95),
        weight_decay=0.01, clip_norm=1.0, ema_decay=0.0, evaluate_every_steps=2_000, checkpoint_every_s=600.0,
        precision=TrainingPrecision.BF16,
    ),
)  # fmt: skip
JOINED_CHANCE = 0.5  # of a batch whose captions are read in pairs
WORDS_WEIGHT, DRAWN_WORDS_WEIGHT = 1.0, 0.5  # of the captions' cross-entropy, and of that with the [IMG] tokens

#: Ours: no such head is published. The rates are DETR's (arXiv 2005.12872).
GROUNDER = Recipe(
    64,
    LoopOptions(
        total_steps=50_000, learning_rate=1e-4, warmup_steps=1_000, weight_decay=1e-4, clip_norm=0.1, ema_decay=0.999,
        evaluate_every_steps=2_000, checkpoint_every_s=600.0, precision=TrainingPrecision.BF16,
    ),
)  # fmt: skip
EARLIER_CHANCE = 0.5  # that another picture and its caption precede a request
RECIPES = {"align": ALIGN, "grounder": GROUNDER}
