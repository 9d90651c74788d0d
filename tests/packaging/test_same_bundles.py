"""The comparison of bundles before and after a change finds what differs, and leaves times and versions aside."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mgcc_runtime.names import MANIFEST
from tests.same_bundles import differences, main


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two folders with one bundle each, written at different times."""
    bundle = tmp_path / "before" / "tiny-cpu-fp32"
    (bundle / "golden").mkdir(parents=True)
    (bundle / "unet.onnx").write_bytes(b"graph")
    (bundle / "golden" / "unet.npz").write_bytes(b"arrays")
    files = {"unet.onnx": {"bytes": 5, "sha256": "a"}, "unet.engine.json": {"bytes": 9, "sha256": "b"}}
    (bundle / MANIFEST).write_text(json.dumps({"profile": "tiny", "built_at": "one day", "files": files}))
    (bundle / "unet.engine.json").write_text(json.dumps({"version": "1.7", "seconds": 2.5}))
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    after = tmp_path / "after" / "tiny-cpu-fp32"
    files["unet.engine.json"]["sha256"] = "c"
    (after / MANIFEST).write_text(json.dumps({"profile": "tiny", "built_at": "the next", "files": files}))
    (after / "unet.engine.json").write_text(json.dumps({"version": "1.7", "seconds": 4.0}))
    return tmp_path / "before", tmp_path / "after"


def test_times_differ(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert list(differences(*folders)) == []
    assert main(list(map(str, folders))) == 0
    assert "are the same" in capsys.readouterr().out


def _write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda bundle: (bundle / name).write_bytes(data)


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a byte": (_write("unet.onnx", b"grapH"), "unet.onnx differs (5 and 5 bytes)"),
    "a byte in a folder": (_write("golden/unet.npz", b"array"), "golden/unet.npz differs"),
    "a file more": (_write("llm.onnx", b""), "llm.onnx is only in"),
    "a file less": (lambda bundle: (bundle / "unet.onnx").unlink(), "unet.onnx is only in"),
    "a field": (_write(MANIFEST, b'{"profile": "story"}'), "profile: 'tiny' and 'story'"),
    "a record": (_write("unet.engine.json", b'{"version": "1.8"}'), "version: '1.7' and '1.8'"),
    "a bundle less": (shutil.rmtree, "tiny-cpu-fp32: only in"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_difference_is_found(folders: tuple[Path, Path], name: str) -> None:
    change, told = CHANGES[name]
    change(folders[1] / "tiny-cpu-fp32")
    assert any(told in line for line in differences(*folders))
    assert main(list(map(str, folders))) == 1


def test_a_folder_without_bundles_is_a_difference(tmp_path: Path) -> None:
    assert ["holds no bundle" in line for line in differences(tmp_path, tmp_path)] == [True]
