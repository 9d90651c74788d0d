"""The linear preview: fitted to the decoder, carried by the manifest, and drawn by the runtime."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import avg_pool2d

from mgcc_export.bundle.preview_fit import fit_preview
from mgcc_ref.config import get_profile
from mgcc_ref.model import MgccModel, load_model
from mgcc_ref.parts import load_parts
from mgcc_ref.story.world.scene import random_scene, render
from mgcc_runtime import BundleError, OptionError, Pipeline, Preview, StepPreview
from mgcc_runtime.bundle.folder import read_manifest
from mgcc_runtime.bundle.manifest import LinearPreview, Manifest
from mgcc_runtime.images.conversion import likeness
from mgcc_runtime.names import MANIFEST


@pytest.fixture(scope="module", params=["tiny", "paper-tiny"])
def model(request: pytest.FixtureRequest) -> MgccModel:
    """With each of both autoencoders."""
    return load_model(get_profile(request.param))


def test_the_fit_is_the_nearest_linear_map(model: MgccModel) -> None:
    """Of a decoder that is linear in a place it finds that map itself."""
    d = model.dimensions
    rng = np.random.default_rng(3)
    weights, bias = rng.normal(size=(3, d.latent_channels)), rng.normal(size=3)

    def linear(latents: torch.Tensor) -> torch.Tensor:
        colours = torch.einsum("rc,bchw->brhw", torch.tensor(weights, dtype=torch.float32), latents)
        colours = colours + torch.tensor(bias, dtype=torch.float32)[:, None, None]
        return colours.repeat_interleave(d.image_px // d.latent_px, 2).repeat_interleave(d.image_px // d.latent_px, 3)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.vae_decoder, "forward", linear)
        found = fit_preview(model)
    np.testing.assert_allclose(found.weights, weights, atol=1e-3)
    np.testing.assert_allclose(found.bias, bias, atol=1e-3)


@pytest.mark.slow
def test_of_story_it_shows_what_is_where() -> None:
    """On scenes that it was not fitted to, against one colour for all of the picture."""
    model = load_model(get_profile("story"))
    found, d, rng = fit_preview(model), model.dimensions, np.random.default_rng(99)
    weights, bias = np.array(found.weights), np.array(found.bias)
    shares = []
    for _ in range(4):
        pixels = torch.from_numpy(render(random_scene(rng)).astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]
        with torch.inference_mode():
            latents = model.vae_decoder.autoencoder.encode(pixels)
            wanted = avg_pool2d(model.vae_decoder(latents), d.image_px // d.latent_px)[0].numpy()
        colours = np.einsum("rc,chw->rhw", weights, latents[0].numpy()) + bias[:, None, None]
        shares.append(((colours - wanted) ** 2).mean() / wanted.var(axis=(1, 2)).mean())
    assert np.mean(shares) < 0.7, "0.61 of the variance within a picture was left"


def test_a_built_bundle_has_it(tiny_bundle: Path, paper_tiny_bundle: Path) -> None:
    """Also one whose parts were in memory one after the other."""
    parts = load_parts(get_profile("paper-tiny"), None)
    parts.hold(["vae_decoder"])
    for path, model in ((tiny_bundle, load_model(get_profile("tiny"))), (paper_tiny_bundle, parts.model)):
        manifest = read_manifest(path)
        assert manifest.preview is not None
        np.testing.assert_allclose(manifest.preview.weights, fit_preview(model).weights, rtol=1e-4, atol=1e-5)
        assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest


def test_previews_are_of_either_kind(tiny_bundle: Path) -> None:
    with Pipeline.load(tiny_bundle) as pipe:
        kinds = {}
        for preview in Preview:
            events = list(pipe.stream(["A cat."], preview_every=1, preview=preview))
            kinds[preview] = [event.image for event in events if isinstance(event, StepPreview)]
            assert all(image is not None and image.size == (32, 32) for image in kinds[preview])
            assert "preview" in events[-1].result.timings  # type: ignore[union-attr]
        assert all(a.tobytes() != b.tobytes() for a, b in zip(*kinds.values(), strict=True))  # type: ignore[union-attr]
        scene = pipe.generate(["A cat."]).scene
        again = list(pipe.stream_redraw(scene, preview_every=1, preview="linear"))
        assert [e.image.tobytes() for e in again if isinstance(e, StepPreview) and e.image] == [
            image.tobytes() for image in kinds[Preview.LINEAR] if image
        ]


def test_a_likeness_is_the_map_of_each_place() -> None:
    latents = np.zeros((1, 2, 2, 2), np.float32)
    latents[0, 0, 0, 0], latents[0, 1, 1, 1] = 1, -1
    preview = LinearPreview(((1.0, 0.0), (0.0, 1.0), (0.0, 0.0)), (0.0, 0.0, 1.0))
    found = np.asarray(likeness(latents, preview, 2))
    assert found.tolist() == [[[255, 128, 255], [128, 128, 255]], [[128, 128, 255], [128, 0, 255]]]


def test_an_older_bundle_has_none(tiny_bundle: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiny_bundle, tmp_path / "older")
    values = json.loads((root / MANIFEST).read_text())
    del values["preview"]
    (root / MANIFEST).write_text(json.dumps(values))
    with Pipeline.load(root) as pipe:
        with pytest.raises(OptionError, match="preview is 'linear', but this bundle has no map for it"):
            pipe.stream(["A cat."], preview_every=1, preview="linear")
        assert pipe.generate(["A cat."], steps=1).image
        assert pipe.bundle.digest == replace(pipe.bundle, manifest=read_manifest(tiny_bundle)).digest
    values["preview"] = {"weights": [[1.0]] * 3, "bias": [0.0] * 3}
    (root / MANIFEST).write_text(json.dumps(values))
    with pytest.raises(BundleError, match=r"has a field of a wrong form \(the preview has 3 rows"):
        read_manifest(root)
