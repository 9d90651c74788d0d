"""The bundle's linear preview: the map from latents to colours that comes nearest to what the decoder makes of them.

Fitted by least squares to pictures that the profile's autoencoder encodes and decodes: scenes of StoryWorld where it
has learned from those, and drawings of our own elsewhere.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import avg_pool2d

from mgcc_ref.model import MgccModel
from mgcc_ref.story.world.scene import IMAGE_PX, random_scene, render
from mgcc_ref.story.world.sprites import LABELS
from mgcc_runtime.bundle.manifest import LinearPreview

_SAMPLES = 4096  # places of latents, at least: some hundred for each of the numbers that are fitted
_SHAPES = 8  # of one drawing


def fit_preview(model: MgccModel) -> LinearPreview:
    """Of the model's own latents: (C, h, w) to colours in [-1, 1]."""
    d = model.dimensions
    rng = np.random.default_rng(0)
    of_story = model.labels == LABELS and d.image_px == IMAGE_PX
    rows, colours = [], []
    for _ in range(-(-_SAMPLES // d.latent_px**2)):
        with torch.inference_mode():
            latents = _encoded(model, _pixels(render(random_scene(rng)) if of_story else _drawing(rng, d.image_px)))
            decoded = avg_pool2d(model.vae_decoder(latents), d.image_px // d.latent_px)
        rows.append(_by_place(latents))
        colours.append(_by_place(decoded))
    places = np.concatenate(rows)
    known = np.concatenate([places, np.ones((len(places), 1))], axis=1)
    found, *_ = np.linalg.lstsq(known, np.concatenate(colours), rcond=None)
    weights, bias = found[:-1].T, found[-1]
    return LinearPreview(tuple(tuple(map(float, row)) for row in weights), tuple(map(float, bias)))


def _encoded(model: MgccModel, pixels: Tensor) -> Tensor:
    vae = model.vae_decoder
    found = vae.autoencoder.encode(pixels)
    latents: Tensor = found.latent_dist.mode() * vae.scaling_factor if vae.kl else found
    return latents


def _by_place(values: Tensor) -> NDArray[np.float64]:
    """(1, C, h, w) -> (h w, C)."""
    array: NDArray[np.float64] = values[0].flatten(1).T.double().numpy()
    return array


def _drawing(rng: np.random.Generator, side_px: int) -> NDArray[np.uint8]:
    """(H, W, 3): coloured shapes before two colours that blend, so that all of the colour space is seen."""
    first, last = rng.integers(0, 256, (2, 3))
    blend = np.linspace(first, last, side_px).astype(np.uint8)[:, None].repeat(side_px, axis=1)
    image = Image.fromarray(np.ascontiguousarray(blend))
    draw = ImageDraw.Draw(image)
    for _ in range(_SHAPES):
        (left, top), (wide, high) = rng.uniform(0, 0.8, 2), rng.uniform(0.1, 0.5, 2)
        edges = tuple(float(edge * side_px) for edge in (left, top, left + wide, top + high))
        shape = draw.ellipse if rng.integers(2) else draw.rectangle
        shape(edges, fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return np.asarray(image)


def _pixels(image: NDArray[np.uint8]) -> Tensor:
    """(1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(image.astype(np.float32) / 127.5 - 1).permute(2, 0, 1).unsqueeze(0)
