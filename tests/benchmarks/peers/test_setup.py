"""Setting peers up: what is said of an absent one, when a set-up expires, and what is written for one."""

from __future__ import annotations

import json
import shutil
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from mgcc_benchmarks.peers.checkpoint import FORM, check_export, older_config
from mgcc_benchmarks.peers.cli import main
from mgcc_benchmarks.peers.client import ROOT, PeerError
from mgcc_benchmarks.peers.install import extras_of, installed_mb, requirements
from mgcc_benchmarks.peers.plain_graphs import _check_weights
from mgcc_benchmarks.peers.plan import Peer
from mgcc_benchmarks.peers.reference_model import open_reference
from mgcc_benchmarks.peers.setup import absence, set_up
from mgcc_benchmarks.peers.workspace import Place, command
from mgcc_ref.config import get_profile
from mgcc_ref.typed_json import to_json
from mgcc_runtime.bundle.folder import Bundle, read_manifest, write_manifest
from mgcc_runtime.contract import stage
from mgcc_runtime.engines import _ENGINES, extra_of
from mgcc_runtime.measure.golden import stage_golden


def test_absent_peers_say_why_and_how(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, Bundle.open(tiny_bundle))
    for peer in (Peer.ONNXRUNTIME, Peer.OPENVINO, Peer.DIFFUSERS, Peer.RUNTIME):
        assert f"run `python benchmarks/peers.py --set-up {peer.value}" in absence(peer, place)
    assert "random weights" in absence(Peer.LLAMACPP, place)
    assert absence(Peer.REFERENCE, place) == ""
    place.folder(Peer.RUNTIME).mkdir()
    stamp = place.folder(Peer.RUNTIME) / "ready.json"
    stamp.write_text('{"packages": ["mgcc-edge[cpu]"]}')
    assert absence(Peer.RUNTIME, place) == ""
    stamp.write_text('{"packages": ["another==1"]}')  # of another version of this benchmark
    assert "not set up" in absence(Peer.RUNTIME, place)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "apt-get install build-essential" in absence(Peer.COMPILE, place)
    with pytest.raises(PeerError, match="needs a C\\+\\+ compiler"):
        set_up(Peer.LLAMACPP, place, print)


def test_a_derived_profile_is_told_by_its_file(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its name, which the manifest has, is not what `--profile` takes."""
    root = shutil.copytree(tiny_bundle, tmp_path / "bundle")
    write_manifest(root, replace(read_manifest(root), profile="mine", profile_in_file=True))
    (file := tmp_path / "mine.json").write_text(to_json(replace(get_profile("tiny"), name="mine")))
    assert main(["--bundle", str(root), "--peers", str(tmp_path), "--set-up", "onnxruntime"]) != 0
    said = capsys.readouterr().err
    assert "is of profile mine, which is none of this project's; give the file that it was built by with --" in said
    place = Place(tmp_path, Bundle.open(root), str(file))
    assert (place.profile, place.weights) == (str(file), "random")
    assert command(Peer.ONNXRUNTIME, place).endswith(f"--bundle {root} --profile {file}")
    assert "random weights" in absence(Peer.LLAMACPP, place)
    golden, model = stage_golden(place.bundle, "unet"), open_reference(place.profile, place.weights)
    _check_weights(place.bundle, model.stage("unet"), stage(model.dimensions, "unet"), golden)
    with pytest.raises(PeerError, match=r"profile story is called story, expected mine, which bundle .* is of"):
        _ = Place(tmp_path, Bundle.open(root), "story").profile
    with pytest.raises(PeerError, match="missing"):
        open_reference("story", str(tmp_path / "none"))


def test_a_set_up_of_another_checkpoint_has_expired(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Place, "gguf", lambda self: tmp_path / "model.gguf")
    place = Place(tmp_path, Bundle.open(tiny_bundle))
    place.folder(Peer.OPTIMUM).mkdir()
    stamp = place.folder(Peer.OPTIMUM) / "ready.json"
    packages = ["optimum-onnx[onnxruntime]==0.1.0", "torch"]
    stamp.write_text(json.dumps({"packages": packages}))  # as it was before theta was told
    assert "not set up" in absence(Peer.OPTIMUM, place)
    stamp.write_text(json.dumps({"packages": packages, "checkpoint": FORM}))
    assert absence(Peer.OPTIMUM, place) == ""


def test_an_older_transformers_is_told_theta() -> None:
    config = {"model_type": "llama", "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"}}
    assert older_config(config) == {**config, "rope_theta": 100000.0, "rope_scaling": None}
    scaled = {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0, "partial_rotary_factor": 0.5}
    older = older_config({"rope_parameters": scaled})
    assert (older["rope_theta"], older["partial_rotary_factor"]) == (5e5, 0.5)
    assert older["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0}
    assert older_config({"model_type": "opt"}) == {"model_type": "opt"}
    with pytest.raises(PeerError, match="has full_attention, expected one rope_theta"):
        older_config({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}})


def test_an_export_of_another_theta_is_refused(tmp_path: Path) -> None:
    for name, theta in (("llm", 100000.0), ("onnx", 10000.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"rope_theta": theta}))
    check_export(tmp_path / "llm", tmp_path / "llm")
    with pytest.raises(PeerError, match=r"rope_theta 10000\.0, expected 100000\.0"):
        check_export(tmp_path / "llm", tmp_path / "onnx")


def test_an_installation_has_the_engines_of_the_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {extra_of(engine) for engine in _ENGINES} <= set(declared)
    manifest = Bundle.open(tiny_bundle).manifest
    assert (extras_of(manifest), requirements(manifest)) == (("cpu",), ("mgcc-edge[cpu]",))
    stages = {**manifest.stages, "unet": replace(manifest.stages["unet"], engine="openvino")}
    mixed = replace(manifest, stages=stages)
    assert extras_of(mixed) == ("cpu", "openvino")
    assert requirements(mixed) == ("mgcc-edge[cpu,openvino]", "mgcc-edge[cpu]")
    for name, size in (("site-cpu", 1000), ("site-cpu-openvino", 3000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lib.so").write_bytes(bytes(size))
    assert installed_mb(tmp_path, ("cpu",)) == 1e-3
    assert installed_mb(tmp_path, ("cpu", "openvino")) == 3e-3
