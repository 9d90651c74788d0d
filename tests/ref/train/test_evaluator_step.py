"""Step `evaluator`: its command, its data, and that what it saves is what StoryBench loads."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mgcc_ref.story.bench_evaluator import Evaluator, load_evaluator
from mgcc_ref.story.world.scene import IMAGE_PX, Background, Scene, place, random_scene, render
from mgcc_ref.train.__main__ import main
from mgcc_ref.train.steps import evaluator
from mgcc_ref.weights import WeightsError

MAX_FILE_BYTES = 4e6


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the run and the weights of three steps on few scenes."""
    folder = tmp_path_factory.mktemp("evaluator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "BATCH_SIZE", 4)
        patch.setattr(evaluator, "HELD_BACK_SCENES", 8)
        options = ["--step", "evaluator", "--steps", "3"]
        assert main([*options, "--run", str(folder / "run"), "--weights", str(folder / "weights")]) == 0
    return folder


def test_saved_file_is_small_and_loads(trained: Path) -> None:
    path = trained / "weights" / "evaluator.safetensors"
    assert path.stat().st_size < MAX_FILE_BYTES
    loaded = load_evaluator(path)
    pixels = torch.rand(2, 3, IMAGE_PX, IMAGE_PX) * 2 - 1
    embedded = loaded.embed_images(pixels)
    assert embedded.shape == (2, 128)
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(2))
    metrics = [json.loads(line) for line in (trained / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"eval_top1", "eval_near_right", "eval_object_top1", "eval_near_margin"} <= metrics[-1].keys()
    assert list((trained / "run").glob("step-*.png"))


def test_missing_weights_say_how_to_train_them(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="--step evaluator"):
        load_evaluator(tmp_path / "evaluator.safetensors")


def test_weights_and_data_are_its_own_whatever_the_seed() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "BATCH_SIZE", 2)
        patch.setattr(evaluator, "HELD_BACK_SCENES", 4)
        torch.manual_seed(1)
        first = evaluator.EvaluatorStep()
        torch.manual_seed(2)
        second = evaluator.EvaluatorStep()
        for a, b in zip(first.objective.parameters(), second.objective.parameters(), strict=True):
            assert torch.equal(a, b)
        same, other = (first.batch(np.random.default_rng(seed))["pixels"] for seed in (5, 6))
        assert torch.equal(same, second.batch(np.random.default_rng(5))["pixels"])
        assert not torch.equal(same, other)


def test_gradients_reach_every_part() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "BATCH_SIZE", 3)
        patch.setattr(evaluator, "HELD_BACK_SCENES", 4)
        step = evaluator.EvaluatorStep()
        loss, _ = step.objective(step.batch(np.random.default_rng(0)), 0)
    loss.backward()
    dead = [n for n, p in step.objective.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


def test_cropped_scene_is_what_the_cropped_picture_shows() -> None:
    """Cut out and scaled up, an object of a plain colour must lie in its new box."""
    scene = Scene(Background.NIGHT, (place("apple", (0.5, 0.5), 40),))
    for seed in range(5):
        cut, pixels = evaluator.cropped(scene, render(scene), np.random.default_rng(seed))
        x1, y1, x2, y2 = (round(v * IMAGE_PX) for v in cut.objects[0].box)
        red = pixels.astype(int)[..., 0] - pixels.astype(int)[..., 2] > 80  # nothing at night is red
        rows, columns = np.flatnonzero(red.any(axis=1)), np.flatnonzero(red.any(axis=0))
        assert abs(columns[0] - x1) <= 8 and abs(columns[-1] - x2) <= 8
        assert rows[0] >= y1 - 3 and rows[-1] <= y2 + 3


def test_near_misses_differ_in_one_thing() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        scene = random_scene(rng)
        other, away = evaluator.renamed(scene, rng), evaluator.moved(scene, rng)
        pairs = list(zip(scene.objects, other.objects, strict=True))
        assert sum(a.label != b.label for a, b in pairs) == 1 and all(a.box == b.box for a, b in pairs)
        pairs = list(zip(scene.objects, away.objects, strict=True))
        assert all(a.label == b.label for a, b in pairs) and sum(a.box != b.box for a, b in pairs) == 1


def test_embedding_depends_on_the_picture() -> None:
    torch.manual_seed(0)
    fresh = Evaluator().eval()
    pixels = torch.rand(3, 3, IMAGE_PX, IMAGE_PX)
    with torch.no_grad():
        alike = fresh.embed_images(pixels) @ fresh.embed_images(pixels).T
    assert alike.diagonal().min() > 0.9999
    assert alike[0, 1] < 0.99999
