"""How well the reader reads: true pictures, and the same spoiled in known ways, against what is really in them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from mgcc_benchmarks.bootstrap import Tally, bootstrap
from mgcc_benchmarks.storybench.reader import Reading, read_picture
from mgcc_benchmarks.storybench.scores import match_objects
from mgcc_benchmarks.storybench.templates import Floats
from mgcc_ref.story.world.scene import IMAGE_PX, Scene, render

log = logging.getLogger("mgcc.benchmarks")

CENTRE_TOLERANCE_PX = 6
BLURS_PX = (0.5, 1.0, 1.5, 2.0)
NOISES = (5, 10, 20)  # standard deviation, of 255

Spoil = Callable[[Floats, int], Floats]  # picture and its number -> picture


def truth(picture: Floats, number: int) -> Floats:
    return picture


def blurred(picture: Floats, number: int, *, sigma_px: float) -> Floats:
    out: Floats = gaussian_filter(picture, (sigma_px, sigma_px, 0))
    return out


def noisy(picture: Floats, number: int, *, deviation: float) -> Floats:
    noise = np.random.default_rng(number).normal(0, deviation / 255, picture.shape)
    return np.clip(picture + noise, 0, 1).astype(np.float32)


def restored_by(folder: Path) -> Spoil | None:
    """Through the story profile's autoencoder and back; None, with a warning in the log, if its weights are missing."""
    import torch

    from mgcc_ref.config import get_profile
    from mgcc_ref.networks.vae import PixelAutoencoder
    from mgcc_ref.weights import WeightsError, load_module

    profile = get_profile("story")
    vae = PixelAutoencoder(profile.vae.channels, profile.unet.latent_channels).eval()
    try:
        load_module(vae, folder / "vae.safetensors")
    except WeightsError as error:
        log.warning("the ceiling leaves the autoencoder out: %s", error)
        return None

    def restore(picture: Floats, number: int) -> Floats:
        with torch.no_grad():
            pixels = torch.from_numpy(picture).permute(2, 0, 1)[None] * 2 - 1
            out = vae.decode(vae.encode(pixels))[0].permute(1, 2, 0)
        restored: Floats = ((out.clamp(-1, 1) + 1) / 2).numpy().astype(np.float32)
        return restored

    return restore


def spoilings(weights: Path) -> dict[str, Spoil]:
    """The ways to spoil a picture, by name."""
    found: dict[str, Spoil] = {"truth": truth}
    found |= {f"blur_{sigma:g}_px": partial(blurred, sigma_px=sigma) for sigma in BLURS_PX}
    found |= {f"noise_{deviation}": partial(noisy, deviation=deviation) for deviation in NOISES}
    restore = restored_by(weights)
    return found if restore is None else found | {"autoencoder": restore}


def tally_reading(scene: Scene, reading: Reading) -> dict[str, Tally]:
    """Objects read with the right class and the centre within 6 px, readings of nothing, and the background."""
    pairs = match_objects(reading.objects, scene.objects)
    right = 0
    for i, j in pairs.items():
        x1, y1, x2, y2 = reading.objects[j].box
        x, y = scene.objects[i].centre
        right += max(abs((x1 + x2) / 2 - x), abs((y1 + y2) / 2 - y)) * IMAGE_PX <= CENTRE_TOLERANCE_PX
    read = len(reading.objects)
    return {
        "objects_right": Tally(right, len(scene.objects)),
        "readings_right": Tally(right, read),
        "background_right": Tally(float(reading.background is scene.background), 1.0),
    }


def measure_ceiling(
    scenes: Sequence[Scene],
    spoils: dict[str, Spoil],
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """{spoiling: {"objects_right" | "readings_right" | "background_right": {"value", "ci95"}}}."""
    found: dict[str, Any] = {}
    for n, (name, spoil) in enumerate(spoils.items()):
        tallies = []
        for number, scene in enumerate(scenes):
            picture = spoil(render(scene).astype(np.float32) / 255.0, number)
            tallies.append(tally_reading(scene, read_picture(picture)))
            progress(n * len(scenes) + number + 1, len(spoils) * len(scenes))
        found[name] = {key: bootstrap([t[key] for t in tallies], seed=seed).to_json() for key in tallies[0]}
    return found
