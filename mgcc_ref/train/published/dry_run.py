"""A run's memory, computed from shapes, and its time, from a few steps whose results are discarded."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from mgcc_ref.networks.clip import build_clip
from mgcc_ref.networks.grounder import LayoutHead
from mgcc_ref.networks.refiner import Refiner
from mgcc_ref.networks.visual_projection import build_projection
from mgcc_ref.train.loop import Trainer, TrainingPrecision
from mgcc_ref.train.published.frozen import Placement, llm_bytes
from mgcc_ref.train.published.parts import Setup
from mgcc_ref.train.published.sequences import TEXT_TOKENS

TRIAL_STEPS = 3
_COPIES = 5  # of trained weights: themselves, their gradient, AdamW's two moments, the average
_LOGIT_COPIES = 3  # the logits, their softmax, its gradient
_LAYER_COPIES = 16  # values that a layer keeps for the gradient, for each of its inputs
_GIB = 2**30


@dataclass(frozen=True)
class Need:
    what: str
    bytes: int
    on_device: bool = True


def needs(setup: Setup, step: str, micro_batch: int, placement: Placement) -> list[Need]:
    """The memory needs of a pass of `micro_batch` samples."""
    profile, size = setup.profile, 4 if setup.precision is TrainingPrecision.FP32 else 2
    llm = profile.llm
    with torch.device("meta"):
        clip = _bytes(build_clip(profile.clip))
        trained = _bytes(*_trained(setup, step))
    tables = (llm.vocabulary * (1 if llm.tied else 2) + llm.max_positions * (llm.family == "opt")) * llm.hidden * size
    positions = micro_batch * (TEXT_TOKENS + profile.visual_tokens)
    passes = 2 if step == "align" else 0  # passes of the language model with gradient
    matrices = 2 if llm.family == "opt" else 3
    within = positions * (8 * llm.hidden + 2 * matrices * llm.intermediate) * size  # of the one running block
    logits = passes * micro_batch * TEXT_TOKENS * (llm.vocabulary + profile.image_tokens) * 4 * _LOGIT_COPIES
    kept = passes * (llm.layers + 1) * positions * llm.hidden * size + within
    own = _LAYER_COPIES * micro_batch * 4 * _own_values(setup, step)
    moving = llm.block_parameters * size if placement is not Placement.DEVICE else 0
    found = [
        Need("language model's blocks", llm_bytes(llm, setup.precision), placement is Placement.DEVICE),
        Need("the block on its way", moving),
        Need("its tables", tables),
        Need("CLIP", clip),
        Need("what is trained, its gradient, moments and average", _COPIES * trained),
        Need(f"activations of {micro_batch} samples", kept),
        Need("logits of their words", logits),
        Need("activations of the mapper" if step == "align" else "activations of the grounder", own),
    ]
    return [need for need in found if need.bytes and not (need.what.endswith("blocks") and placement is Placement.DISK)]


def _own_values(setup: Setup, step: str) -> int:
    """Values between the trained layers for one sample."""
    p = setup.profile
    if step == "grounder":
        head, positions = p.grounder, TEXT_TOKENS + p.visual_tokens
        return head.hidden * (head.encoder_layers * positions + head.rounds * head.layers * p.max_objects)
    mapper = p.refiner
    return mapper.mapper_layers * mapper.mapper_hidden * (p.clip.text_positions + p.image_tokens)


def _trained(setup: Setup, step: str) -> list[nn.Module]:
    p = setup.profile
    features, width = p.llm.feature_dim, p.clip.text_hidden
    if step == "grounder":
        labels = torch.zeros(len(p.labels), width)
        return [LayoutHead(p.grounder, features, p.llm.hidden, p.max_objects, labels)]
    projection = build_projection(p.clip, p.visual_pooling, p.visual_tokens, p.llm.hidden)
    return [projection, Refiner(p.refiner, features, p.llm.hidden, p.clip.text_positions, width, p.image_tokens)]


def _bytes(*modules: nn.Module) -> int:
    return sum(4 * p.numel() for module in modules for p in module.parameters())


def told(found: list[Need], device: torch.device, free_bytes: int) -> list[str]:
    """The needs as lines, and whether the device has room for its share."""
    lines = [f"{need.bytes / _GIB:9.3f} GiB  {need.what}{'' if need.on_device else ' (main memory)'}" for need in found]
    there = sum(need.bytes for need in found if need.on_device)
    lines.append(f"{there / _GIB:9.3f} GiB  on {device.type}, of which {free_bytes / _GIB:.3f} are free")
    if there > free_bytes:
        lines.append("It does not fit: give a smaller --micro-batch, or --llm-at host or disk.")
    return lines


def trial(begin: Callable[[], Trainer], total_steps: int) -> list[str]:
    """Run a few steps; returns lines on the peak memory and the time of the run."""
    trainer = begin()
    a_step_s = trainer.trial(TRIAL_STEPS)
    device = trainer.accelerator.device
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    else:
        kilobytes = 1 if sys.platform == "darwin" else 1024
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * kilobytes
    hours = a_step_s * total_steps / 3600
    return [
        f"{peak / _GIB:9.3f} GiB  at most in {TRIAL_STEPS + 1} steps, measured on {device.type}",
        f"{a_step_s:9.3f} s    a step, measured; {total_steps} steps: {hours:.2f} hours",
    ]
