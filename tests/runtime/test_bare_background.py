"""A picture without things: how it is drawn, and what the result says of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from mgcc_runtime import Box, NoteCode, Pipeline
from mgcc_runtime.bundle.folder import LayoutRules, read_manifest, write_manifest
from mgcc_runtime.cli import main
from mgcc_runtime.contract import BARE_VIEWS
from mgcc_runtime.layout import Layout, joined, layout_from_boxes
from tests.runtime.tiny_bundle import DIMENSIONS, make_bundle


@pytest.fixture(scope="module")
def nothing(bundle_path, tmp_path_factory):
    """A bundle whose grounder is never sure enough of anything."""
    root = shutil.copytree(bundle_path, tmp_path_factory.mktemp("nothing") / "bundle")
    write_manifest(root, replace(read_manifest(root), layout=LayoutRules(0.99)))
    with Pipeline.load(root) as pipeline:
        yield pipeline


def pixels(result):
    return np.asarray(result.image).tobytes()


def test_the_result_says_that_nothing_was_found(nothing):
    found = nothing.generate(["A cat."], steps=2)
    assert found.boxes == ()
    assert [note.code for note in found.notes] == [NoteCode.NOTHING_TO_PLACE]
    asked = nothing.generate(["A cat."], steps=2, boxes="none")
    assert asked.notes == (), "who asks for no boxes knows"
    assert pixels(asked) == pixels(found) == pixels(nothing.generate(["A cat."], steps=2, boxes=[]))


def test_a_result_with_things_has_no_notes(pipe):
    found = pipe.generate(["A cat."], steps=1)
    assert found.boxes and found.notes == ()


def test_the_command_line_says_so(nothing, tmp_path, capsys):
    command = ["generate", "--bundle", str(nothing.bundle.root), "--text", "A cat.", "--steps", "1"]
    assert main([*command, "--out", str(tmp_path / "x.png"), "--json"]) == 0
    text = "nothing was found to place in the picture, so it shows the bare background"
    assert json.loads(capsys.readouterr().out)["notes"] == [{"code": "nothing-to-place", "text": text}]
    assert main([*command, "--out", str(tmp_path / "x.png")]) == 0
    assert text in capsys.readouterr().out


def test_each_half_is_predicted_with_a_thing_in_the_other(pipe, dimensions):
    d, rng = dimensions, np.random.default_rng(0)
    views = pipe.phrases.views(Layout.empty(d))
    assert [layout.box_mask.sum() for layout in views] == [1, 1]
    for view, layout in zip(BARE_VIEWS, views, strict=True):
        (x1, _, x2, _), (start, end) = view.box, view.columns
        assert x2 <= start or end <= x1, "it stands outside of what is taken"
        np.testing.assert_allclose(layout.boxes[0, 0], view.box)
        np.testing.assert_array_equal(layout.phrase_embeddings[0, 0], pipe.labels.embeddings[0])
    assert [view.columns for view in BARE_VIEWS] == [(0.0, 0.5), (0.5, 1.0)]
    left, right = (rng.normal(size=(1, d.latent_channels, 4, 4)).astype(np.float32) for _ in views)
    found = joined([left, right])
    np.testing.assert_array_equal(found[..., :2], left[..., :2])
    np.testing.assert_array_equal(found[..., 2:], right[..., 2:])
    assert joined([np.zeros((1, 1, 5, 5)), np.ones((1, 1, 5, 5))]).shape == (1, 1, 5, 5)


def test_a_layout_with_things_is_told_as_it_is(pipe, dimensions):
    layout = layout_from_boxes([Box("cat", (0, 0, 9, 9))], [pipe.phrases.embed("cat")], dimensions)
    assert pipe.phrases.views(layout) == (layout,)


@pytest.mark.parametrize("kind", ["gated", "no labels", "no labels and no phrase encoder"])
def test_other_bundles(tmp_path, kind):
    """GLIGEN's gates have learned from pictures without boxes; without a list of labels the thing's name is ours.

    Made by hand: of the exporter's profiles none has gates without a phrase encoder, or no labels without gates.
    """
    dimensions = replace(DIMENSIONS, gated=kind == "gated", phrase_encoder=kind == "no labels")
    root = make_bundle(tmp_path / "b", dimensions, **({} if kind == "gated" else {"labels": ()}))
    with Pipeline.load(root) as pipeline:
        views = pipeline.phrases.views(Layout.empty(dimensions))
        assert len(views) == (1 if kind == "gated" else 2)
        assert (kind == "no labels") == bool(np.abs(views[0].phrase_embeddings).sum())
        assert pipeline.generate(["A cat."], steps=2, boxes="none").boxes == ()
