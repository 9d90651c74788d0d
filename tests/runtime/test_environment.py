"""Homes, caches, temporary folders, users and locales as services have them: drawn, if without a cache."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgcc_runtime import Pipeline, caches
from mgcc_runtime.bundle.folder import read_manifest, write_manifest
from mgcc_runtime.caches import cache_place, writable_cache
from mgcc_runtime.cli import main

TEXT = "Füchse im Schnee."
#: What is set; None: unset. FILE is a file and NOWHERE a place where not even root can make a folder.
WITHOUT_CACHE: dict[str, dict[str, str | None]] = {
    "no home": {"HOME": "NOWHERE/home"},
    "empty home": {"HOME": ""},
    "relative home": {"HOME": "here"},
    "home is a file": {"HOME": "FILE"},
    "relative XDG": {"XDG_CACHE_HOME": "here", "HOME": "NOWHERE"},
    "empty XDG": {"XDG_CACHE_HOME": "", "HOME": "NOWHERE"},
    "XDG cannot be made": {"XDG_CACHE_HOME": "NOWHERE/cache"},
    "XDG is a file": {"XDG_CACHE_HOME": "FILE"},
    "ours cannot be made": {"MGCC_CACHE": "NOWHERE/cache"},
    "ours is a file": {"MGCC_CACHE": "FILE"},
    "ours is empty": {"MGCC_CACHE": "", "HOME": "NOWHERE"},
    "no temporary folder": {"TMPDIR": "NOWHERE", "HOME": "NOWHERE"},
}


@pytest.fixture(scope="module")
def openvino_bundle(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small bundle with two stages on OpenVINO, in a folder whose name is no ASCII."""
    root = shutil.copytree(bundle_path, tmp_path_factory.mktemp("of") / "Bündel")
    manifest = read_manifest(root)
    moved = {name: replace(manifest.stages[name], engine="openvino") for name in ("unet", "vae_decoder")}
    write_manifest(root, replace(manifest, stages={**manifest.stages, **moved}))
    return root


@pytest.fixture(scope="module")
def expected(openvino_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch, Pipeline.load(openvino_bundle, threads=1) as pipeline:
        patch.setenv("MGCC_CACHE", str(tmp_path_factory.mktemp("cache")))
        return np.asarray(pipeline.generate([TEXT]).image)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and no variable of ours or of XDG's."""
    for name in ("MGCC_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    caches._say_once.cache_clear()
    return tmp_path


def set_all(values: dict[str, str | None], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "a_file").write_text("")
    for name, value in values.items():
        assert value is not None
        monkeypatch.setenv(name, value.replace("FILE", str(place / "a_file")).replace("NOWHERE", "/proc/nowhere"))


def test_where_caches_lie(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(place))
    assert cache_place() == place / ".cache" / "mgcc"
    monkeypatch.setenv("XDG_CACHE_HOME", str(place / "xdg"))
    assert writable_cache("a/b") == place / "xdg" / "mgcc" / "a" / "b"
    monkeypatch.setenv("MGCC_CACHE", "own")
    assert writable_cache("a") == place / "own" / "a"
    assert (place / "own" / "a").is_dir()


@pytest.mark.parametrize("case", WITHOUT_CACHE)
def test_drawn_without_a_cache(
    case: str, openvino_bundle: Path, expected: np.ndarray, place: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """One line of the log says so, and no folder is left anywhere else."""
    set_all(WITHOUT_CACHE[case], place, monkeypatch)
    with caplog.at_level(logging.INFO, "mgcc_runtime"):
        code = main(["generate", "--bundle", str(openvino_bundle), "--text", TEXT, "--out", "x.png", "--threads", "1"])
    assert (code, capsys.readouterr().err) == (0, "")
    with Image.open("x.png") as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), expected)
    assert [r.name for r in caplog.records] == ["mgcc_runtime.caches"]
    assert "for the next start" in caplog.text
    assert sorted(p.name for p in place.iterdir()) == ["a_file", "x.png"]


def run_bare(arguments: list[str], environment: dict[str, str], place: Path, *before: str) -> None:
    """`mgcc` as a process with these variables alone; it must end with 0 and say nothing on standard error."""
    command = [*before, sys.executable, "-m", "mgcc_runtime", *arguments]
    done = subprocess.run(command, capture_output=True, env=environment, cwd=place, check=False)
    assert (done.returncode, done.stderr.decode()) == (0, "")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="only root with setpriv (util-linux) becomes a user that the system does not know; as root this runs",
)
def test_a_user_whom_the_system_does_not_know(openvino_bundle: Path, expected: np.ndarray) -> None:
    """No entry in passwd, no HOME, no temporary folder, an empty environment, and a bundle that is not theirs to write.

    They keep the right to read what this user reads, where Python lies.
    """
    number = 54_321
    rights = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    become = ["setpriv", f"--reuid={number}", f"--regid={number}", "--clear-groups", *rights]
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        os.chown(folder, number, number)
        arguments = ["generate", "--bundle", str(openvino_bundle), "--text", TEXT, "--out", f"{folder}/x.png"]
        run_bare(arguments, {"PATH": os.environ["PATH"], "TMPDIR": "/proc/nowhere"}, Path(folder), *become)
        with Image.open(f"{folder}/x.png") as drawn:
            np.testing.assert_array_equal(np.asarray(drawn), expected)
        assert [p.name for p in Path(folder).iterdir()] == ["x.png"]


def test_without_a_locale(openvino_bundle: Path, expected: np.ndarray, tmp_path: Path) -> None:
    """Names of files and texts are UTF-8 all the same, also for engines and tokenizers that are told a name."""
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "HOME": str(tmp_path)}
    run_bare(["generate", "--bundle", str(openvino_bundle), "--text", TEXT, "--out", "ü.png"], plain, tmp_path)
    with Image.open(tmp_path / "ü.png") as drawn:
        np.testing.assert_array_equal(np.asarray(drawn), expected)
