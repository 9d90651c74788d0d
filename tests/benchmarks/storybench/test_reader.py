"""The reader on true pictures, and how it takes what is spoiled."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgcc_benchmarks.storybench.reader import nearest_background, read_picture, to_picture
from mgcc_benchmarks.storybench.reader_ceiling import blurred, measure_ceiling, noisy, spoilings, truth
from mgcc_ref.story.bench import Suite, bench_items
from mgcc_ref.story.stories import Setting
from mgcc_ref.story.world.scene import Background, Scene, backdrop, random_scene, render

MIN_RIGHT = 0.98  # of the objects: class, and centre within 6 px


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [item.target for item in bench_items(Suite.STORIES, Setting.CAPTIONS_5_IMAGES_4, 36)]


@pytest.mark.slow
def test_true_pictures_are_read(scenes: list[Scene]) -> None:
    found = measure_ceiling(scenes, {"truth": truth})["truth"]
    assert found["objects_right"]["value"] >= MIN_RIGHT
    assert found["readings_right"]["value"] >= MIN_RIGHT
    assert found["background_right"]["value"] == 1


@pytest.mark.slow
def test_a_little_blur_and_noise_is_forgiven_and_much_is_not(scenes: list[Scene]) -> None:
    def right(sigma_px: float) -> float:
        spoils = {"soft": lambda p, n: noisy(blurred(p, n, sigma_px=sigma_px), n, deviation=8)}
        return float(measure_ceiling(scenes[:8], spoils)["soft"]["objects_right"]["value"])

    assert right(0.8) >= 0.9
    assert right(6.0) <= 0.2


def test_small_and_odd_pictures_are_read(scenes: list[Scene]) -> None:
    """A picture of another size is scaled, an alpha channel dropped; nothing is found in an empty one."""
    large = Image.fromarray(render(scenes[0])).resize((256, 256), Image.Resampling.BICUBIC).convert("RGBA")
    reading = read_picture(to_picture(large))
    assert sorted(thing.label for thing in reading.objects) == sorted(o.label for o in scenes[0].objects)
    for background in Background:
        empty = read_picture(np.asarray(backdrop(background)))
        assert empty.objects == () and empty.background is background


def test_noise_and_flat_grey_hold_no_objects() -> None:
    noise = np.random.default_rng(0).random((128, 128, 3), dtype=np.float32)
    assert read_picture(noise).objects == ()
    assert read_picture(np.full((128, 128, 3), 0.5, np.float32)).objects == ()


def test_background_is_told_apart_behind_many_objects() -> None:
    rng = np.random.default_rng(9)
    for _ in range(60):
        scene = random_scene(rng)
        assert nearest_background(render(scene).astype(np.float32) / 255) is scene.background


def test_missing_autoencoder_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert "autoencoder" not in spoilings(tmp_path)
    assert "the ceiling leaves the autoencoder out" in caplog.text
