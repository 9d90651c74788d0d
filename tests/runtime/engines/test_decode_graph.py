"""A second graph of the language model, for one new position at a time.

The bundles are made by hand: the calibration writes a second graph only where it measures that one is faster, and with
the first one's weights; here it must be there on every machine, and may differ, so that which one was taken shows.
"""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from mgcc_runtime import Pipeline
from mgcc_runtime.bundle.folder import Bundle, Manifest
from mgcc_runtime.cli import main
from mgcc_runtime.contract import DECODE, stage
from mgcc_runtime.errors import BundleError
from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.measure.verify import verify
from tests.runtime.bundle.test_folder import edit_manifest
from tests.runtime.golden_data import add_golden
from tests.runtime.in_place_llm import make_in_place, make_two_graph_bundle
from tests.runtime.tiny_bundle import DIMENSIONS, make_stage, reseal

EMPTY = KvCache.empty(DIMENSIONS)


def plain(seed=0):
    return make_stage(stage(DIMENSIONS, "llm"), DIMENSIONS, seed)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Read only: the same graph for both, with golden data."""
    folder = tmp_path_factory.mktemp("decode")
    return add_golden(make_two_graph_bundle(folder / "bundle", None, plain()))


@pytest.fixture
def own(root, tmp_path):
    return shutil.copytree(root, tmp_path / "own")


def embeddings(length, seed=0):
    return np.random.default_rng(seed).normal(0, 1, (1, length, DIMENSIONS.hidden)).astype(np.float32)


def test_one_position_takes_it_and_several_do_not(tmp_path):
    made = make_two_graph_bundle(tmp_path / "bundle", None, plain(seed=1))
    shutil.copytree(made, tmp_path / "first")
    edit_manifest(tmp_path / "first", lambda m: m["stages"]["llm"].pop("decode"))
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    shutil.copy(made / "llm_decode.onnx", tmp_path / "second" / "llm.onnx")
    reseal(tmp_path / "second")
    with (
        Pipeline.load(made) as both, Pipeline.load(tmp_path / "first") as first,
        Pipeline.load(tmp_path / "second") as second,
    ):  # fmt: skip
        for length, alone in ((1, second), (2, first), (8, first)):
            x = embeddings(length)
            np.testing.assert_array_equal(both.stages.read(x, EMPTY).logits, alone.stages.read(x, EMPTY).logits)
        apart = first.stages.read(x[:, :1], EMPTY).logits - second.stages.read(x[:, :1], EMPTY).logits
        assert np.abs(apart).max() > 0.1  # or the above would say nothing


def test_both_read_each_others_caches(tmp_path):
    """One graph copies its cache and the other writes in place; the values are the same model's."""
    in_place = make_in_place()
    made = make_two_graph_bundle(tmp_path / "bundle", None, in_place)
    with Pipeline.load(made) as pipeline:
        copying, writing = (pipeline.stages.sessions[name] for name in ("llm", DECODE))
        start = pipeline.stages.read(embeddings(4), EMPTY)  # by the copying graph
        step = pipeline.stages.read(embeddings(1, seed=1), start.cache)  # by the other
        after = pipeline.stages.read(embeddings(3, seed=2), step.cache)  # back again
        assert after.cache.length == 8
        by_hand = KvCache(tuple(tensor.numpy() for tensor in start.cache.tensors), 4)
        found = writing.run({"inputs_embeds": embeddings(1, seed=1), **by_hand.feeds()})
        np.testing.assert_array_equal(found["logits"][0, 0], step.logits)
        by_hand = KvCache(tuple(tensor.numpy() for tensor in step.cache.tensors), 5)
        found = copying.run({"inputs_embeds": embeddings(3, seed=2), **by_hand.feeds()})
        np.testing.assert_array_equal(found["logits"][0, 0], after.logits)


def test_a_bundle_without_it_is_as_before(bundle_path):
    manifest = Bundle.open(bundle_path).manifest
    assert manifest.stages["llm"].decode is None and DECODE not in manifest.graphs()
    assert "decode" not in manifest.to_json()["stages"]["llm"]


def test_the_manifest_keeps_it(root):
    manifest = Bundle.open(root).manifest
    assert Manifest.from_json(json.loads(json.dumps(manifest.to_json()))) == manifest
    assert manifest.graphs()[DECODE].file == "llm_decode.onnx" in manifest.files


def test_an_altered_byte_is_refused(own):
    path = own / "llm_decode.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match=r"llm_decode\.onnx is altered: SHA-256"):
        Bundle.open(own)


@pytest.mark.parametrize("name", ["../llm_decode.onnx", "other.onnx"])
def test_a_file_that_is_not_listed_is_refused(own, name):
    edit_manifest(own, lambda m: m["stages"]["llm"]["decode"].update(file=name))
    with pytest.raises(BundleError, match=r"lists no .*\.onnx in its manifest"):
        Bundle.open(own)


def test_no_other_stage_has_one(own):
    entry = {"file": "llm_decode.onnx", "engine": "onnxruntime", "precision": "fp32"}
    edit_manifest(own, lambda m: m["stages"]["unet"].update(decode=entry))
    with pytest.raises(BundleError, match="a graph for decoding in the stage unet, expected one in llm alone"):
        Bundle.open(own)


@pytest.mark.parametrize("value", [7, {"file": "llm_decode.onnx"}, "llm_decode.onnx"])
def test_an_entry_of_another_form_is_refused(own, value):
    edit_manifest(own, lambda m: m["stages"]["llm"].update(decode=value))
    with pytest.raises(BundleError, match=r"has no field|field of a wrong form"):
        Bundle.open(own)


def test_verify_reads_it_position_by_position(root, own):
    named = {f.name: f for f in verify(root, threads=1)}
    assert named[f"stage {DECODE}"].passed and named["request"].passed
    import onnx

    onnx.save(plain(seed=1), own / "llm_decode.onnx")
    named = {f.name: f for f in verify(reseal(own), threads=1)}
    assert named["stage llm"].passed and not named[f"stage {DECODE}"].passed


def test_info_shows_it(root, capsys):
    assert main(["info", "--bundle", str(root)]) == 0
    assert any(line.split()[:1] == [DECODE] for line in capsys.readouterr().out.splitlines())


def test_a_chat_goes_on_with_two_graphs(root, made_bundle):
    """With the same weights in both, answers are those of one graph."""
    answers = []
    for path in (root, made_bundle):
        with Pipeline.load(path, threads=1) as pipeline:
            chat = pipeline.chat()
            chat.send("A cat.", words=4)
            answers.append(chat.send("A dog.", words=4))
    assert answers[0].text_tokens == answers[1].text_tokens
    np.testing.assert_array_equal(np.asarray(answers[0].image), np.asarray(answers[1].image))
