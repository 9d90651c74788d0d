"""Cosine of two pictures' features under StoryBench's own evaluator."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from mgcc_benchmarks.storybench.evaluation import Likeness
from mgcc_ref.story.bench_evaluator import EVALUATOR_FILE, Evaluator, load_evaluator
from mgcc_ref.story.world.scene import IMAGE_PX

log = logging.getLogger("mgcc.benchmarks")


class EvaluatorLikeness:
    """GILL's CLIP similarity: generated against true picture, with a CLIP that no part of the system uses."""

    def __init__(self, evaluator: Evaluator) -> None:
        self.evaluator = evaluator

    def __call__(self, drawn: Image.Image, truth: Image.Image) -> float:
        """Cosine in [-1, 1]."""
        import torch

        size = (IMAGE_PX, IMAGE_PX)
        pair = [np.asarray(i.convert("RGB").resize(size, Image.Resampling.BICUBIC)) for i in (drawn, truth)]
        pixels = torch.from_numpy(np.stack(pair)).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.no_grad():
            first, second = self.evaluator.embed_images(pixels)
        return float(first @ second)


def find_likeness(path: Path = EVALUATOR_FILE) -> Likeness | None:
    """The trained evaluator; None, with a warning in the log, if there is none yet."""
    if not path.is_file():
        log.warning(
            "clip_similarity is null: the evaluator's weights %s are missing; train them with "
            "`python -m mgcc_ref.train --step evaluator`",
            path,
        )
        return None
    return EvaluatorLikeness(load_evaluator(path))
