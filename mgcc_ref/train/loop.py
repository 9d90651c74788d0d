"""The training loop that every step shares: resume, EMA, progress, metrics and sample pictures.

A run is a function of (step, seed, number of steps): batch `i` is drawn from a generator seeded with
(seed, i), so a killed run resumes from its last checkpoint with the same data.
"""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset

from mgcc_ref.train.errors import TrainingError

log = logging.getLogger("mgcc.train")

Batch = Mapping[str, Tensor]


def on_device_of(module: nn.Module, batch: Batch) -> Batch:
    """The batch on the device of the module's parameters."""
    device = next(module.parameters()).device
    return {name: value.to(device) for name, value in batch.items()}


class TrainingStep(Protocol):
    """The interface of a step (vae, clip, unet, align, grounder) for the loop."""

    @property
    def objective(self) -> nn.Module:
        """Module whose forward(batch, step) gives (loss, metrics); its parameters that require grad are trained."""

    def batch(self, rng: np.random.Generator) -> Batch:
        """Draw one batch; called once a training step."""

    def evaluate(self) -> dict[str, float]:
        """Scores on held-back data, with the averaged weights in place."""

    def picture(self, path: Path) -> None:
        """Write a PNG that shows the model's present quality."""

    def save_weights(self, folder: Path) -> list[Path]:
        """Write the trained modules as fp16 safetensors; return the files."""

    def load_weights(self, folder: Path) -> None:
        """Start from the files of `save_weights` in `folder`, instead of fresh weights."""


@runtime_checkable
class OrderedStep(Protocol):
    """A step over a data set. Its batches do not depend on the number of parts and processes that draw them."""

    def part_of_batch(self, step: int, part: int, parts: int) -> Batch:
        """One of `parts` equal parts of the batch of training step `step`."""


class TrainingPrecision(Enum):
    """Number format of the forward and backward pass; weights, optimiser and average stay fp32 either way.

    On a core with AVX512-BF16, bf16 took 43 ms where fp32 took 96 (convolutions) and 75 where it took 185 (linear
    layers); on a core without, it is slower than fp32.
    """

    FP32 = "fp32"
    BF16 = "bf16"


@dataclass(frozen=True)
class LoopOptions:
    """Settings of the loop. The rate reaches `learning_rate` after `warmup_steps`. Over the last `decay_fraction` it
    falls as a half cosine, or else to a tenth at every `tenth_every_steps` after the warm-up."""

    total_steps: int
    learning_rate: float
    warmup_steps: int = 100
    decay_fraction: float = 0.4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    clip_norm: float = 1.0
    ema_decay: float = 0.998
    seed: int = 0
    checkpoint_every_s: float = 120.0
    evaluate_every_steps: int = 400
    log_every_steps: int = 20
    precision: TrainingPrecision = TrainingPrecision.FP32
    workers: int = 0  # processes that draw batches ahead; 0: the trainer draws them between two steps
    tenth_every_steps: int | None = None
    accumulate: int = 1  # batches whose gradients one step accumulates

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of step `step` (from 0)."""
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.tenth_every_steps is not None:
            return self.learning_rate * warm * 0.1 ** (max(0, step - self.warmup_steps) // self.tenth_every_steps)
        decay_start = self.total_steps * (1 - self.decay_fraction)
        t = max(0.0, (step - decay_start) / max(1.0, self.total_steps - decay_start))
        return self.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, t))))


@dataclass(frozen=True)
class _Share:
    """The part of each batch that a process draws."""

    process: int
    processes: int
    accumulate: int


class _Batches(Dataset[tuple[int, Batch]]):
    """Batch `i` of a run, with PyTorch's seed for its step; the same in any worker process."""

    def __init__(self, step: TrainingStep, seed: int, share: _Share) -> None:
        self._step, self._seed, self._share = step, seed, share

    def __getitem__(self, index: int) -> tuple[int, Batch]:
        # the process index keeps several GPUs from drawing the same batch
        share = self._share
        rng = np.random.default_rng([self._seed, index, share.process])
        seed = int(rng.integers(2**31))
        torch.manual_seed(seed)
        if isinstance(self._step, OrderedStep):
            step, turn = divmod(index, share.accumulate)
            part = turn * share.processes + share.process
            return seed, self._step.part_of_batch(step, part, share.accumulate * share.processes)
        return seed, self._step.batch(rng)


_ACCELERATE_NAME = {TrainingPrecision.FP32: "no", TrainingPrecision.BF16: "bf16"}


def attention_of(precision: TrainingPrecision) -> AbstractContextManager[None]:
    """Unfused attention for bf16 on the CPU: there, PyTorch 2.13's fused backward is 13 times slower than in fp32."""
    if precision is TrainingPrecision.BF16 and not torch.cuda.is_available():
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


@contextmanager
def frozen_arithmetic(precision: TrainingPrecision) -> Iterator[None]:
    """The number format of a frozen model that makes training data, outside of accelerate's control.

    The language model's hidden states in bf16 differ from fp32's by 0.7 % (relative L2, median over positions).
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    low = precision is TrainingPrecision.BF16
    with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=low), attention_of(precision):
        yield


class ExponentialAverage:
    """Exponential moving average of all trained parameters; a warm-up reduces the weight of early steps."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {n: p.detach().clone() for n, p in module.named_parameters() if p.requires_grad}

    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name in self.shadow:
                    self.shadow[name].lerp_(parameter.detach(), 1 - decay)

    def swap(self, module: nn.Module) -> None:
        """Exchange the module's weights with the averaged ones; calling it twice restores them."""
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                if name in self.shadow:
                    current = parameter.detach().clone()
                    parameter.copy_(self.shadow[name])
                    self.shadow[name] = current


class Trainer:
    """Runs one `TrainingStep` in `folder`, which holds checkpoint.pt, metrics.jsonl and pictures."""

    def __init__(self, step: TrainingStep, options: LoopOptions, folder: Path) -> None:
        self.step, self.options, self.folder = step, options, folder
        self.accelerator = Accelerator(mixed_precision=_ACCELERATE_NAME[options.precision])
        parameters = [p for p in step.objective.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(
            parameters, lr=options.learning_rate, betas=options.betas, weight_decay=options.weight_decay
        )
        self.objective, self.optimizer = self.accelerator.prepare(step.objective, optimizer)
        self.ema = ExponentialAverage(step.objective, options.ema_decay)
        self.done_steps = 0

    def run(self) -> None:
        """Train up to `total_steps`, from the folder's checkpoint if there is one."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        if self.accelerator.num_processes > 1 and self.accelerator.is_main_process:
            log.info("training in %d processes; the gradient is their mean", self.accelerator.num_processes)
        started, first, last_save = time.monotonic(), self.done_steps, time.monotonic()
        batches = iter(self._batches())
        while self.done_steps < self.options.total_steps:
            loss, metrics = self._train_step(batches)
            self.done_steps += 1
            if self.done_steps % self.options.log_every_steps == 0:
                rate = (self.done_steps - first) / (time.monotonic() - started)
                self._report(loss, metrics, rate)
            if self.done_steps % self.options.evaluate_every_steps == 0 and self.done_steps < self.options.total_steps:
                self._evaluate()
            if time.monotonic() - last_save > self.options.checkpoint_every_s:
                self._save_checkpoint()
                last_save = time.monotonic()
        self._save_checkpoint()
        self._evaluate()

    def trial(self, steps: int) -> float:
        """Mean seconds a step over `steps` steps after a first one. Nothing is saved."""
        batches = iter(self._batches())
        self._train_step(batches)
        started = time.monotonic()
        for _ in range(steps):
            self._train_step(batches)
        return (time.monotonic() - started) / steps

    def save_weights(self, folder: Path) -> list[Path]:
        """Write the averaged weights as safetensors into `folder`."""
        self.ema.swap(self.step.objective)
        try:
            return self.step.save_weights(folder)
        finally:
            self.ema.swap(self.step.objective)

    def _batches(self) -> DataLoader[tuple[int, Batch]]:
        """The remaining batches of the run, in order."""
        options, accelerator = self.options, self.accelerator
        left = range(self.done_steps * options.accumulate, options.total_steps * options.accumulate)
        share = _Share(accelerator.process_index, accelerator.num_processes, options.accumulate)
        drawn, workers = _Batches(self.step, options.seed, share), options.workers
        # forked, so that the processes share what a step has cached
        context = "fork" if workers else None
        return DataLoader(drawn, batch_size=None, sampler=left, num_workers=workers, multiprocessing_context=context)

    def _train_step(self, batches: Iterator[tuple[int, Batch]]) -> tuple[float, dict[str, float]]:
        """One step of the optimiser; the loss and the metrics are means over its batches."""
        options, accelerator, count = self.options, self.accelerator, self.options.accumulate
        for group in self.optimizer.param_groups:
            group["lr"] = options.learning_rate_at(self.done_steps)
        self.objective.train()
        losses, told = [], list[dict[str, float]]()
        for turn in range(count):
            seed, drawn = next(batches)
            torch.manual_seed(seed)
            batch = {k: v.to(accelerator.device) for k, v in drawn.items()}
            last = turn == count - 1
            with nullcontext() if last else accelerator.no_sync(self.objective):  # gradients are shared at the last
                with attention_of(options.precision):
                    loss, metrics = self.objective(batch, self.done_steps)
                if not torch.isfinite(loss):
                    raise FloatingPointError(
                        f"loss is {loss.item()} at step {self.done_steps}; lower the learning rate"
                    )
                accelerator.backward(loss / count)
            losses.append(loss.item())
            told.append({k: float(v) for k, v in metrics.items()})
        accelerator.clip_grad_norm_(self.objective.parameters(), options.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.update(self.step.objective, self.done_steps)
        return sum(losses) / count, {k: sum(one[k] for one in told) / count for k in told[0]}

    def _report(self, loss: float, metrics: dict[str, float], steps_per_s: float) -> None:
        if not self.accelerator.is_main_process:
            return
        left_min = (self.options.total_steps - self.done_steps) / steps_per_s / 60
        shown = " ".join(f"{k} {v:.4g}" for k, v in metrics.items())
        log.info(
            "step %d/%d  loss %.4f  %s  %.2f steps/s  %.1f min left",
            self.done_steps, self.options.total_steps, loss, shown, steps_per_s, left_min,
        )  # fmt: skip
        self._write_metrics({"loss": loss, "steps_per_s": steps_per_s, **metrics})

    def _evaluate(self) -> None:
        if not self.accelerator.is_main_process:
            return
        self.ema.swap(self.step.objective)
        self.step.objective.eval()
        try:
            with torch.no_grad():
                scores = self.step.evaluate()
                self.step.picture(self.folder / f"step-{self.done_steps:06d}.png")
        finally:
            self.ema.swap(self.step.objective)
        log.info("held back: %s", "  ".join(f"{k} {v:.4f}" for k, v in scores.items()))
        self._write_metrics({f"eval_{k}": v for k, v in scores.items()})

    def _write_metrics(self, values: dict[str, float]) -> None:
        if self.accelerator.is_main_process:
            with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.done_steps, **values}) + "\n")

    def _save_checkpoint(self) -> None:
        if not self.accelerator.is_main_process:
            return
        state: dict[str, Any] = {
            "step": self.done_steps,
            "seed": self.options.seed,
            "objective": self.step.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.shadow,
        }
        temporary = self.folder / "checkpoint.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self.folder / "checkpoint.pt")  # atomic: a kill leaves the old or the new file

    def _resume(self) -> None:
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else "it is empty"
            raise TrainingError(f"{path} is no checkpoint ({reason}); choose another --run folder") from error
        if state["seed"] != self.options.seed:
            raise TrainingError(
                f"{path} was trained with seed {state['seed']}, not {self.options.seed}; choose another --run folder"
            )
        try:
            self.step.objective.load_state_dict(state["objective"])
        except RuntimeError as error:
            raise TrainingError(f"{path} is of another step or profile; choose another --run folder") from error
        self.optimizer.load_state_dict(state["optimizer"])
        self.ema.shadow = state["ema"]
        self.done_steps = state["step"]
        log.info("resumed at step %d from %s", self.done_steps, path)
