"""What OpenVINO compiled is read at the next start; a cache that is damaged or cannot be written harms nobody."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mgcc_runtime.engines import Compiled, EngineOptions, open_session
from tests.runtime.engine_makers import spec_of, write_onnx
from tests.runtime.golden_data import example_inputs

KEPT = EngineOptions(threads=1, compiled=Compiled.KEPT)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MGCC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def predict(folder: Path, options: EngineOptions) -> np.ndarray:
    spec = spec_of("unet")
    session = open_session("openvino", write_onnx(folder, "unet", None), spec, options)
    found = session.run(example_inputs(spec.inputs))["prediction"]
    session.close()
    return found


def blobs(cache: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in cache.rglob("*.blob")}


def test_what_was_compiled_is_kept_and_read(tmp_path: Path, cache: Path) -> None:
    first = predict(tmp_path, KEPT)
    kept = blobs(cache)
    assert kept
    np.testing.assert_array_equal(predict(tmp_path, KEPT), first)
    assert blobs(cache) == kept


def test_nothing_is_kept_of_what_is_opened_once(tmp_path: Path, cache: Path) -> None:
    predict(tmp_path, EngineOptions(threads=1))
    assert not blobs(cache)


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"\0" * len(data), lambda _: b""])
def test_a_damaged_cache_is_made_again(tmp_path: Path, cache: Path, damage) -> None:
    first = predict(tmp_path, KEPT)
    for path, data in blobs(cache).items():
        path.write_bytes(damage(data))
    np.testing.assert_array_equal(predict(tmp_path, KEPT), first)


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path: Path, cache: Path) -> None:
    cache.write_text("a file where the folder should be")
    assert np.isfinite(predict(tmp_path, KEPT)).all()
