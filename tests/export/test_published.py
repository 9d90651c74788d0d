"""Published weights through an exported bundle: GILL, OPT, CLIP and GLIGEN draw what their own libraries draw."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from mgcc_benchmarks.paper import vist_cli
from mgcc_export.cli import main
from mgcc_ref.config import get_profile
from mgcc_ref.model import load_model
from mgcc_ref.pipeline import GroundedObject, ReferencePipeline
from mgcc_runtime import Box, Grounder, Pipeline
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.errors import EXIT_BAD_INPUT
from mgcc_runtime.measure.verify import verify
from tests.benchmarks.paper.datasets import write_vist
from tests.gills_picture import gills_conditioning, gligens_picture
from tests.published import gill_of, publish_gill
from tools import derive_profile

PICTURE = Image.fromarray(np.arange(56 * 56 * 3, dtype=np.uint8).reshape(56, 56, 3))
PARTS = ["A zebra stands here. ", PICTURE, " And now?"]
BOXES = ([0.1, 0.2, 0.6, 0.7], [0.5, 0.5, 0.9, 1.0])
PHRASES = ("a zebra", "a tall tree")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_gill(tmp_path_factory.mktemp("weights"))[0]


@pytest.fixture(scope="module")
def bundle(weights: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("published") / "bundle"
    options = ["--profile", str(weights / "profile.json"), "--weights", str(weights)]
    assert main([*options, "--cache", str(cache), "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the stages that builds of the same weights share."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.slow
def test_a_bundle_draws_what_transformers_and_diffusers_draw(weights: Path, bundle: Path) -> None:
    profile, out = str(weights / "profile.json"), bundle
    manifest = Bundle.open(out).manifest
    assert (manifest.profile, manifest.weights, manifest.profile_in_file) == ("mine", "trained", True)
    assert [finding for finding in verify(out) if not finding.passed] == []
    size = manifest.dimensions.image_px
    with Pipeline.load(out) as pipeline:
        boxes = [Box(label, tuple(round(size * v) for v in box)) for label, box in zip(PHRASES, BOXES, strict=True)]
        drawn = pipeline.generate(PARTS, seed=5, steps=12, boxes=boxes, words=0)
        other = pipeline.generate(PARTS, seed=5, steps=12, boxes=boxes[:1], words=0)
    conditioning = gills_conditioning(weights, gill_of(weights), get_profile(profile).refiner.mapper_heads, PARTS)
    whole = [[v / size for v in box.xyxy] for box in boxes]
    _, wanted = gligens_picture(weights, conditioning, list(zip(PHRASES, whole, strict=True)), seed=5, steps=12)
    error = np.mean((np.asarray(drawn.image, float) - wanted.astype(float)) ** 2)
    assert 10 * np.log10(255**2 / max(error, 1e-9)) > 45
    assert not np.array_equal(np.asarray(other.image), np.asarray(drawn.image))


@pytest.mark.slow
def test_vist_scores_a_bundle_as_the_reference(
    weights: Path, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the file of the derived profile, with the CLIP that the model sees by."""
    annotations, pictures = write_vist(tmp_path / "data")
    shared = ["--annotations", str(annotations), "--pictures", str(pictures), "--clip", str(weights / "clip")]
    shared += ["--steps", "3", "--json"]
    profile = ["--profile", str(weights / "profile.json"), "--weights", str(weights)]
    found = []
    for name, painter in (("bundle", ["--bundle", str(bundle)]), ("reference", ["--reference", *profile])):
        assert vist_cli.main([*shared, *painter, "--out", str(tmp_path / name)]) == 0
        found.append(json.loads(capsys.readouterr().out)["scores"]["clip_similarity"])
    assert found[0]["value"] == pytest.approx(found[1]["value"], abs=1e-3) and found[0]["pairs"] == 4
    assert len({path.read_bytes() for path in (tmp_path / "bundle" / "pictures").iterdir()}) == 3


@pytest.mark.slow
def test_published_weights_alone_draw_where_their_language_model_says(
    weights: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No head was trained and no box is given: OPT writes the layout on the device that it writes in PyTorch."""
    for part in ("llm", "clip", "unet", "vae", "scheduler", "alignment.safetensors"):
        (tmp_path / part).symlink_to(weights / part)
    profile, out = str(weights / "profile.json"), tmp_path / "bundle"
    options = ["--profile", profile, "--weights", str(tmp_path), "--cache", str(cache), "--out", str(out)]
    assert main(options) == EXIT_BAD_INPUT  # a bundle with the head needs its weights
    assert "or export with `--grounder in-context`, which needs none" in capsys.readouterr().err
    assert main([*options, "--grounder", "in-context"]) == 0
    manifest = Bundle.open(out).manifest
    assert "grounder" not in manifest.stages and manifest.grounders == (Grounder.IN_CONTEXT,)
    findings = {finding.name: finding for finding in verify(out)}
    assert [finding for finding in findings.values() if not finding.passed] == []
    assert findings["layout"].values["token_match"] == 1.0
    reference = ReferencePipeline(
        load_model(replace(get_profile(profile), grounders=(Grounder.IN_CONTEXT,)), tmp_path)
    )  # fmt: skip
    wanted = reference.generate(PARTS, seed=5, steps=6)
    size = manifest.dimensions.image_px
    with Pipeline.load(out) as pipeline:
        drawn = pipeline.generate(PARTS, seed=5, steps=6)
    assert [box.label for box in drawn.boxes] == [item.label for item in wanted.layout.objects]
    assert drawn.boxes  # what the noise of an untrained model writes is a layout all the same
    for box, item in zip(drawn.boxes, wanted.layout.objects, strict=True):
        assert box.xyxy == tuple(np.float32(v) * size for v in item.box)
    assert np.abs(np.asarray(drawn.image, int) - np.asarray(wanted.image, int)).max() <= 1


@pytest.mark.slow
def test_four_steps_of_a_lora_are_verified_and_drawn(weights: Path, tmp_path: Path) -> None:
    """With GLIGEN's gates in the first of them, and one branch: guidance is in the weights."""
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    for part in ("llm", "clip", "unet", "vae", "scheduler"):
        (tmp_path / part).symlink_to(weights / part)
    for file in ("alignment", "grounder"):
        (tmp_path / f"{file}.safetensors").symlink_to(weights / f"{file}.safetensors")
    (tmp_path / "lora").mkdir()
    state = {f"{layer}.lora_down.weight": torch.ones(2, 32), f"{layer}.lora_up.weight": torch.ones(32, 2)}
    save_file(state, tmp_path / "lora" / "few.safetensors")
    made = ["--like", "gill-tiny", "--weights", str(tmp_path), "--name", "few", "--few-steps", "4"]
    assert derive_profile.main(made) == 0
    profile, out = str(tmp_path / "profile.json"), tmp_path / "bundle"
    options = ["--profile", profile, "--weights", str(tmp_path), "--cache", str(tmp_path / "cache"), "--out", str(out)]
    assert main(options) == 0
    manifest = Bundle.open(out).manifest
    assert manifest.dimensions.distilled and manifest.dimensions.gated and manifest.default_steps == 4
    assert [finding for finding in verify(out) if not finding.passed] == []
    box = Box("a zebra", (4.0, 4.0, 40.0, 40.0))
    reference = ReferencePipeline(load_model(get_profile(profile), tmp_path))
    size = manifest.dimensions.image_px
    wanted = reference.generate(
        PARTS, seed=5, boxes=[GroundedObject(box.label, tuple(v / size for v in box.xyxy), 1.0)]
    ).image
    with Pipeline.load(out) as pipeline:
        drawn = pipeline.generate(PARTS, seed=5, boxes=[box])
    assert np.abs(np.asarray(drawn.image, int) - np.asarray(wanted, int)).max() <= 1


def test_weights_that_are_not_the_profiles_are_one_sentence(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of another profile, and of a file that is none."""
    places = ["--weights", str(weights), "--cache", str(tmp_path / "cache"), "--out", str(tmp_path / "out")]
    options = [*places, "--profile"]
    assert main([*options, "paper", "--ignore-estimate"]) == EXIT_BAD_INPUT
    said = capsys.readouterr().err.splitlines()[-1]
    assert "is not the profile's: hidden 128 where the profile has 4096" in said and "tools/derive_profile.py" in said
    (tmp_path / "broken.json").write_text("{}")
    assert main([*options, str(tmp_path / "broken.json")]) == EXIT_BAD_INPUT
    assert "is not valid (name: Field required)" in capsys.readouterr().err
