"""Two graphs that share a file of weights: what they share, what stays their own, and what is never written into."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from mgcc_calibration.graphs.share_weights import WEIGHTS_KEY, share_weights
from mgcc_runtime.bundle.folder import sha256_of

SIZE = 32  # 32 x 32 float32 weights: 4 KiB each
INPUT = np.random.default_rng(9).normal(0, 1, (2, SIZE)).astype(np.float32)


def weight(seed: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0, 0.2, (SIZE, SIZE)).astype(np.float32)


def write(path: Path, seeds: tuple[int, ...], *, data: bool = False) -> Path:
    """A graph that multiplies by the weights of these seeds in turn and adds a small one; names are its own."""
    nodes, weights, last = [], [], "x"
    for place, seed in enumerate(seeds):
        weights.append(numpy_helper.from_array(weight(seed), f"{path.stem}.{place}"))
        nodes.append(helper.make_node("MatMul", [last, weights[-1].name], [last := f"h{place}"]))
    weights.append(numpy_helper.from_array(np.ones(SIZE, np.float32), "small"))
    nodes.append(helper.make_node("Add", [last, "small"], ["y"]))
    ends = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, SIZE]) for n in ("x", "y")]
    model = helper.make_model(
        helper.make_graph(nodes, path.stem, ends[:1], ends[1:], initializer=weights),
        opset_imports=[helper.make_opsetid("", 18)], ir_version=10,
    )  # fmt: skip
    path.parent.mkdir(exist_ok=True)
    if data:
        onnx.save_model(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=1024)
    else:
        onnx.save(model, path)
    return path


def answer(path: Path) -> NDArray[np.float32]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {"x": INPUT})[0]
    return found


def places(path: Path) -> dict[str, str]:
    """Weight -> the file it lies in, "" for the graph's own."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    return {t.name: next((e.value for e in t.external_data if e.key == "location"), "") for t in tensors}


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize(("owners", "readers"), [(False, False), (True, True), (True, False), (False, True)])
def test_what_is_the_same_lies_there_once(tmp_path: Path, *, owners: bool, readers: bool) -> None:
    a, b = write(tmp_path / "a.onnx", (1, 2, 3), data=owners), write(tmp_path / "b.onnx", (2, 3, 4), data=readers)
    before, answers = size_of(tmp_path), (answer(a), answer(b))
    assert share_weights(a, b) == 2 * 4 * SIZE**2
    np.testing.assert_array_equal(answer(a), answers[0])
    np.testing.assert_array_equal(answer(b), answers[1])
    own = "b.onnx.data" if readers else ""
    assert places(b) == {"b.0": "a.onnx.data", "b.1": "a.onnx.data", "b.2": own, "small": ""}
    assert set(places(a).values()) == {"a.onnx.data", ""}
    assert before - size_of(tmp_path) > 2 * 4 * SIZE**2 - 2000  # places, hashes and gaps take a little
    for path in (a, b):
        onnx.checker.check_model(path, full_check=True)


def test_a_graph_with_nothing_of_its_own_keeps_no_file(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.onnx", (1, 2), data=True), write(tmp_path / "b.onnx", (2, 1), data=True)
    share_weights(a, b)
    assert {p.name for p in tmp_path.iterdir()} == {"a.onnx", "a.onnx.data", "b.onnx"}


@pytest.mark.parametrize("data", [False, True])
def test_nothing_in_common_touches_nothing(tmp_path: Path, *, data: bool) -> None:
    a, b = write(tmp_path / "a.onnx", (1,), data=data), write(tmp_path / "b.onnx", (2,), data=data)
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in tmp_path.iterdir()}
    assert share_weights(a, b) == 0
    assert before == {path: (path.stat().st_ino, path.read_bytes()) for path in tmp_path.iterdir()}


def test_files_that_are_linked_elsewhere_are_not_written_into(tmp_path: Path) -> None:
    cached = [write(tmp_path / "cache" / name, (1, 2)) for name in ("a.onnx", "b.onnx")]
    before = [sha256_of(path) for path in cached]
    (tmp_path / "bundle").mkdir()
    linked = [tmp_path / "bundle" / path.name for path in cached]
    for path, link in zip(cached, linked, strict=True):
        os.link(path, link)
    assert share_weights(*linked) > 0
    assert [sha256_of(path) for path in cached] == before


def test_twice_is_once(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.onnx", (1, 2)), write(tmp_path / "b.onnx", (2, 3))
    share_weights(a, b)
    before = {path: sha256_of(path) for path in tmp_path.iterdir()}
    assert share_weights(a, b) == 0
    assert before == {path: sha256_of(path) for path in tmp_path.iterdir()}


def test_an_owner_made_anew_leaves_the_reader_what_it_read(tmp_path: Path) -> None:
    """As a calibration does, which lowers one of two graphs: the file it shared goes on being read by the other."""
    a, b = write(tmp_path / "a.onnx", (1, 2, 3)), write(tmp_path / "b.onnx", (1, 2, 3))
    share_weights(a, b)
    expected = answer(b)
    write(a, (3, 5, 6))
    other = answer(a)
    share_weights(a, b)
    np.testing.assert_array_equal(answer(b), expected)
    np.testing.assert_array_equal(answer(a), other)
    assert set(places(b).values()) == {"a.onnx.data", "b.onnx.data", ""}


def test_a_graphs_hash_covers_weights_that_lie_elsewhere(tmp_path: Path) -> None:
    hashes = set()
    for seed in (1, 2):
        pair = [write(tmp_path / str(seed) / name, (seed,)) for name in ("a.onnx", "b.onnx")]
        share_weights(*pair)
        hashes |= {sha256_of(path) for path in pair}
        data = pair[0].with_name("a.onnx.data")
        for path in pair:
            (entry,) = [e for e in onnx.load(path, load_external_data=False).metadata_props if e.key == WEIGHTS_KEY]
            assert entry.value == f"a.onnx.data:{sha256_of(data)}"
    assert len(hashes) == 4
