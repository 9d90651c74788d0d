"""A whole build of the tiny profile, and what a killed one leaves."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from mgcc_export.build import build, schedule_of
from mgcc_export.errors import ValueMismatchError
from mgcc_export.options import BuildOptions
from mgcc_export.report.table import BuildReport, build_table
from mgcc_export.stages.cache import stage_cache
from mgcc_ref.config import get_profile
from mgcc_ref.model import MgccModel
from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.contract import SOLVER_LATENTS, stages
from mgcc_runtime.errors import BundleError
from mgcc_runtime.measure.verify import verify

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "export" / "build_engines.py"

Built = tuple[BuildReport, BuildOptions]


def _steps_of(options: BuildOptions) -> list[tuple[str, str]]:
    steps: list[tuple[str, str]] = []
    build(options, lambda stage, step: steps.append((stage, step)))
    return steps


def test_the_bundle_opens_with_every_hash_checked(tiny_build: Built) -> None:
    bundle = Bundle.open(tiny_build[1].out)
    assert bundle.manifest.weights == "random"
    assert set(bundle.manifest.precision.values()) == {"fp32"}
    assert bundle.labels() == get_profile("tiny").labels


def test_every_file_of_the_folder_is_listed(tiny_build: Built) -> None:
    out = tiny_build[1].out
    found = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert found == {*Bundle.open(out).manifest.files, "manifest.json"}


def test_tables_are_the_models(tiny_build: Built, tiny: MgccModel) -> None:
    bundle, d = Bundle.open(tiny_build[1].out), tiny.dimensions
    np.testing.assert_array_equal(bundle.array("embed_tokens.npy", (d.vocabulary, d.hidden)), tiny.embed_tokens)
    np.testing.assert_array_equal(bundle.array("label_embeddings.npy", (None, d.phrase)), tiny.label_embeddings)


def test_golden_outputs_come_out_of_the_stage_files(tiny_build: Built, tiny: MgccModel) -> None:
    out = tiny_build[1].out
    for spec in stages(tiny.dimensions):
        with np.load(out / "golden" / f"{spec.name}.npz", allow_pickle=False) as golden:
            feeds = {t.name: golden[f"in.{t.name}"] for t in spec.inputs}
            expected = [golden[f"out.{t.name}"] for t in spec.outputs]
        actual = ort.InferenceSession(out / f"{spec.name}.onnx").run([t.name for t in spec.outputs], feeds)
        for theirs, ours in zip(expected, actual, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)  # fp32 against fp32


def test_golden_llm_has_a_past(tiny_build: Built) -> None:
    with np.load(tiny_build[1].out / "golden" / "llm.npz", allow_pickle=False) as golden:
        assert golden["in.past_key_values.0.key"].shape[2] > 0
        assert golden["in.inputs_embeds"].shape[1] > 1


def test_golden_request_can_be_sent_again(tiny_build: Built) -> None:
    folder = tiny_build[1].out / "golden"
    request = json.loads((folder / "request.json").read_text())
    assert all((folder / part["image"]).is_file() for part in request["parts"] if "image" in part)
    with np.load(folder / "request.npz", allow_pickle=False) as arrays:
        assert arrays["image"].dtype == np.uint8
        assert arrays["image"].shape == (32, 32, 3)


def test_the_runtime_verifies_the_bundle_and_the_whole_request(tiny_build: Built) -> None:
    findings = list(verify(tiny_build[1].out))
    assert [f.name for f in findings if not f.passed] == []
    assert findings[-1].name == "request"


@pytest.mark.parametrize("profile", ["tiny", "story", "paper"])
def test_schedule_has_a_table_for_every_number_of_steps(profile: str) -> None:
    tables = schedule_of(get_profile(profile)).to_json()["tables"]
    assert list(tables) == [str(n) for n in range(1, 51)]
    terms = SOLVER_LATENTS + get_profile(profile).sampler.order
    for table in tables.values():
        assert [len(row) for row in table["coefficients"]] == [terms] * len(table["timesteps"])
        assert np.isfinite(table["coefficients"]).all()


def test_the_report_has_every_stage_within_tolerance(tiny_build: Built, tiny: MgccModel) -> None:
    report = tiny_build[0]
    values = json.loads(json.dumps(report.to_json()))
    assert [s["stage"] for s in values["stages"]] == [s.name for s in stages(tiny.dimensions)]
    for stage in values["stages"]:
        assert stage["worst"]["cosine"] >= stage["tolerance"]["cosine"]
        assert stage["worst"]["relative_l2"] <= stage["tolerance"]["relative_l2"]
    assert all(s.stage in build_table(report) for s in report.stages)


def test_a_second_build_exports_nothing(tiny_build: Built) -> None:
    steps = _steps_of(tiny_build[1])
    assert not [step for step in steps if step[1] == "exporting"]
    assert len([step for step in steps if step[1] == "kept from an earlier build"]) == 7
    Bundle.open(tiny_build[1].out)


def test_a_stage_that_another_build_has_in_hand_is_waited_for(tiny_build: Built, tmp_path: Path) -> None:
    options = dataclasses.replace(tiny_build[1], out=tmp_path / "some", stages=("vae_decoder",))
    lock, steps = stage_cache(options.cache).lock("tiny-vae_decoder-fp32"), list[tuple[str, str]]()
    lock.acquire()

    def finish_the_other(stage: str, step: str) -> None:
        steps.append((stage, step))
        if step.startswith("waiting for another build"):
            lock.release()

    build(options, finish_the_other)
    told = [step for stage, step in steps if stage == "vae_decoder"]
    assert told == ["waiting for another build, which has it in hand", "kept from an earlier build"]


def test_some_stages_make_a_bundle_that_says_what_is_missing(tiny_build: Built, tmp_path: Path) -> None:
    options = dataclasses.replace(tiny_build[1], out=tmp_path / "some", stages=("unet", "vae_decoder"))
    report = build(options, lambda stage, step: None)
    assert [s.stage for s in report.stages] == ["unet", "vae_decoder"]
    with pytest.raises(BundleError, match="has no stage grounder, llm, refiner, solver, vision_encoder"):
        Bundle.open(tmp_path / "some")


def test_a_stage_that_fails_validation_is_neither_cached_nor_bundled(
    tiny_build: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mgcc_export.stages.answers as module

    def spoiled(stage_module, *rest):
        import copy

        import torch

        other = copy.deepcopy(stage_module)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.mul_(1.01)
        return exporter(other, *rest)

    exporter = module.export_stage
    monkeypatch.setattr(module, "export_stage", spoiled)
    options = dataclasses.replace(
        tiny_build[1], out=tmp_path / "bundle", cache=tmp_path / "cache", stages=("vae_decoder",)
    )
    with pytest.raises(ValueMismatchError, match="image of stage vae_decoder differs from PyTorch"):
        build(options, lambda stage, step: None)
    assert not (tmp_path / "bundle").exists()
    assert not [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


@pytest.mark.slow
@pytest.mark.slow
def test_a_killed_build_leaves_no_bundle_and_the_next_goes_on(tiny_build: Built, tmp_path: Path) -> None:
    out, cache = tmp_path / "bundle", tmp_path / "cache"
    command = [sys.executable, str(LAUNCHER), "--profile", "tiny", "--out", str(out), "--cache", str(cache)]
    process = subprocess.Popen([*command, "--stages", "vision_encoder,unet"], stderr=subprocess.DEVNULL)
    try:
        _wait_until(lambda: list(cache.glob("tiny-vision_encoder-*/entry.json")), process)
    finally:
        process.kill()
        process.wait()
    assert not out.exists()
    assert (tmp_path / ".bundle.partial").is_dir()
    with pytest.raises(BundleError):
        Bundle.open(tmp_path / ".bundle.partial")
    steps = _steps_of(
        dataclasses.replace(tiny_build[1], out=out, cache=cache, stages=("vision_encoder", "vae_decoder"))
    )
    assert ("vision_encoder", "kept from an earlier build") in steps
    assert ("vae_decoder", "exporting") in steps
    assert (out / "manifest.json").is_file()
    assert not (tmp_path / ".bundle.partial").exists()


def _wait_until(ready, process: subprocess.Popen[bytes], timeout_s: float = 600.0) -> None:
    end = time.monotonic() + timeout_s
    while not ready():
        assert process.poll() is None, f"the build ended with {process.returncode} before it could be killed"
        assert time.monotonic() < end, "no stage was finished in time"
        time.sleep(0.02)
