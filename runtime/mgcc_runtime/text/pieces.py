"""A prompt read in pieces, so that a request that is no longer wanted ends between two of them.

The language model is causal and its cache goes from piece to piece, so pieces give what one call gives, up to the order
of sums in it: the same holds between the turns of a chat. How much an engine reads at once is said with the engine.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from mgcc_runtime.bundle.manifest import Vision
from mgcc_runtime.images.conversion import pixel_values
from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.stages import Floats, LlmStep, Stages
from mgcc_runtime.stopwatch import Stopwatch


def see_in_pieces(stages: Stages, images: Sequence[Image.Image], vision: Vision, watch: Stopwatch) -> Floats:
    """Pictures of the vision encoder's size, at least one -> visual tokens (B, k, D)."""
    most, seen = stages.images_at_once, []
    for first in range(0, len(images), most):
        with watch.measure("vision_encoder"):
            pixels = pixel_values(images[first : first + most], stages.dimensions.vision_px, vision)
            seen.append(stages.see(pixels))
    return np.concatenate(seen)


def read_in_pieces(
    stages: Stages, embeddings: Floats, cache: KvCache, watch: Stopwatch, name: str = "llm_prefill"
) -> LlmStep:
    """`Stages.read` of embeddings (1, S, D), S at least 1: the features are those of all S positions.

    Its time is counted as that of `name`.
    """
    most, features = stages.positions_at_once, []
    for first in range(0, embeddings.shape[1], most):
        with watch.measure(name):
            end = stages.read(embeddings[:, first : first + most], cache)
        cache = end.cache
        features.append(end.features)
    return LlmStep(end.logits, features[0] if len(features) == 1 else np.concatenate(features, axis=1), end.cache)
