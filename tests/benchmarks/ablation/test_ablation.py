"""The ablation's arms draw what the reference draws, and its arithmetic is right."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mgcc_benchmarks.ablation import cli, train
from mgcc_benchmarks.ablation.arms import (
    CEILINGS,
    TRAINED_ARMS,
    Arm,
    ArmsPainter,
    Variant,
    alignment_folder,
    caption_unet_folder,
    grounder_folder,
    variants,
)
from mgcc_benchmarks.ablation.records import ItemRecords, draw_items
from mgcc_benchmarks.ablation.report import chart, markdown_report, summarise_arms
from mgcc_benchmarks.ablation.settings import SETTINGS_FILE, differences, drawing_settings
from mgcc_benchmarks.ablation.train import CommonStart, TrainingSteps, train_arms, trainings
from mgcc_benchmarks.bootstrap import Tally
from mgcc_benchmarks.storybench.evaluation import SCORES, Plan
from mgcc_benchmarks.storybench.painters import Drawn, TruthPainter
from mgcc_ref.config import get_profile
from mgcc_ref.model import Alignment, MgccModel, load_model
from mgcc_ref.networks.caption_unet import CaptionUNet
from mgcc_ref.networks.refiner import Refiner
from mgcc_ref.pipeline import ReferencePipeline
from mgcc_ref.story.bench import BenchItem, Suite, bench_item, setting_of
from mgcc_ref.weights import WeightsError, save_module
from mgcc_runtime.errors import InputError
from mgcc_runtime.measure.similarity import psnr_db
from tests.tolerances import FP32_IMAGE_PSNR_DB

SEEDS = (0, 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of all arms of the tiny profile, each from another seed."""
    root = tmp_path_factory.mktemp("ablation")
    for seed in SEEDS:
        for offset, arm in ((10, Arm.GILL), (10, Arm.CMRM), (10, Arm.CMRM_UNORDERED), (30, Arm.GILL_LONGER)):
            model = _with_refiner(load_model("tiny", "random", seed=offset + seed), arm)
            save_module(Alignment(model), alignment_folder(root, arm, seed) / "alignment.safetensors")
        save_module(
            load_model("tiny", "random", seed=20 + seed).grounder, grounder_folder(root, seed) / "grounder.safetensors"
        )
    save_module(_caption_unet(load_model("tiny"), seed=40), caption_unet_folder(root) / "caption_unet.safetensors")
    return root


def _caption_unet(model: MgccModel, *, seed: int) -> CaptionUNet:
    """The model's UNet, with a caption's map of random weights in the place of the boxes'."""
    torch.manual_seed(seed)
    clip = model.profile.clip
    unet = CaptionUNet(model.profile.unet, clip.text_hidden, clip.text_positions, clip.text_hidden, len(model.labels))
    unet.load_state_dict(model.unet.state_dict(), strict=False)
    return unet.eval()


def _with_refiner(model: MgccModel, arm: Arm) -> MgccModel:
    if not arm.ordered:
        profile = model.profile
        state = torch.random.get_rng_state()
        torch.manual_seed(3)
        config = arm.refiner(profile.refiner)
        model.refiner = Refiner(
            config, profile.llm.feature_dim, profile.llm.hidden, profile.clip.text_positions, profile.clip.text_hidden
        )
        torch.random.set_rng_state(state)
    return model


@pytest.mark.slow
def test_each_arm_is_the_reference_with_its_modules(folder: Path) -> None:
    item = bench_item(Suite.STORIES, setting_of(Suite.STORIES, "1"), 0)
    painter = ArmsPainter(folder, SEEDS, profile="tiny", steps=4)
    drawn = painter.draw(item, seed=5)
    assert set(drawn) == set(variants(SEEDS))
    for arm in TRAINED_ARMS:
        model = load_model("tiny")
        single = ArmsPainter(folder, (1,), profile="tiny", steps=4)
        imagination = single._imaginations[alignment_folder(folder, arm, 1)]
        model.llm.image_tokens, model.refiner = imagination.tokens, imagination.refiner
        model.grounder = single._grounders[1]
        model.unet = single._unets[arm.boxed]
        expected = ReferencePipeline(model).generate(item.inputs(), seed=5, steps=4, boxes=None if arm.grounded else ())
        found = drawn[Variant(arm, 1)]
        assert psnr_db(np.asarray(found.image), np.asarray(expected.image)) >= FP32_IMAGE_PSNR_DB, arm
        assert len(found.boxes) == len(expected.layout.objects)


@pytest.mark.slow
def test_arms_differ_by_what_they_are_told(folder: Path) -> None:
    painter = ArmsPainter(folder, (0,), profile="tiny", steps=2)
    drawn = painter.draw(bench_item(Suite.STORIES, setting_of(Suite.STORIES, "1"), 1), seed=0)
    pictures = {variant: d.image.tobytes() for variant, d in drawn.items()}
    assert pictures[Variant(Arm.GILL, 0)] != pictures[Variant(Arm.CMRM, 0)]
    assert pictures[Variant(Arm.GILL, 0)] != pictures[Variant(Arm.GILL_LONGER, 0)]
    assert len(drawn[Variant(Arm.TRUE_LAYOUT, None)].boxes) > 0
    assert not drawn[Variant(Arm.TRUE_CAPTION, None)].boxes
    assert pictures[Variant(Arm.TRUE_CAPTION, None)] != pictures[Variant(Arm.TRUE_LAYOUT, None)]
    assert drawn[Variant(Arm.COGM_LONGER, 0)].boxes == drawn[Variant(Arm.COGM, 0)].boxes
    assert not drawn[Variant(Arm.GILL_LONGER, 0)].boxes


@pytest.mark.slow
def test_one_arm_draws_alone_what_it_draws_beside_the_others(folder: Path) -> None:
    item, wanted = bench_item(Suite.STORIES, setting_of(Suite.STORIES, "1"), 2), Variant(Arm.COGM_LONGER, 0)
    painter = ArmsPainter(folder, SEEDS, profile="tiny", steps=2)
    alone = painter.draw(item, 3, [wanted])
    assert list(alone) == [wanted]
    beside = painter.draw(item, 3)[wanted]
    assert psnr_db(np.asarray(alone[wanted].image), np.asarray(beside.image)) >= FP32_IMAGE_PSNR_DB
    # made from the longer alignment and the seed's grounder, and from no weights of its own
    model = load_model("tiny")
    imagination = painter._imaginations[folder / "weights-gill-longer-0"]
    model.llm.image_tokens, model.refiner = imagination.tokens, imagination.refiner
    model.grounder = painter._grounders[0]
    expected = ReferencePipeline(model).generate(item.inputs(), seed=3, steps=2)
    assert psnr_db(np.asarray(alone[wanted].image), np.asarray(expected.image)) >= FP32_IMAGE_PSNR_DB


@pytest.mark.slow
def test_settings_tell_options_and_every_arms_weights(folder: Path, tmp_path: Path) -> None:
    painter = ArmsPainter(folder, (0,), profile="tiny", steps=2)
    found = drawing_settings(PLAN, painter, tmp_path / "no-evaluator")
    assert found["denoising steps"] == 2 and found["evaluator"] is None
    assert set(found["arms"]) == {
        "weights-gill-0/alignment.safetensors",
        "weights-cmrm-0/alignment.safetensors",
        "weights-cmrm-unordered-0/alignment.safetensors",
        "weights-gill-longer-0/alignment.safetensors",
        "weights-grounder-0/grounder.safetensors",
        "weights-caption-unet/caption_unet.safetensors",
    }
    assert all(len(digest) == 64 for digest in found["arms"].values())
    assert json.loads(json.dumps(found)) == found


def test_absent_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"weights-gill-0/alignment\.safetensors are missing"):
        ArmsPainter(tmp_path, (0,), profile="tiny")


def test_both_kinds_of_alignment_train_alike(tmp_path: Path) -> None:
    runs = {run.name: run for run in trainings(tmp_path, (4,), TrainingSteps(align=7, grounder=9))}
    assert list(runs) == [
        "align-gill-4", "align-cmrm-unordered-4", "align-cmrm-4", "grounder-4", "align-gill-longer-4", "caption-unet",
    ]  # fmt: skip
    assert runs["align-cmrm-unordered-4"].options == (*runs["align-cmrm-4"].options, "--refinement", "cmrm-unordered")
    assert runs["align-gill-4"].options == (*runs["align-cmrm-4"].options, "--cmrm-blocks", "0")
    assert runs["align-gill-4"].options[2:4] == ("--steps", "7")
    assert runs["grounder-4"].options[2:4] == ("--steps", "9")
    longer = runs["align-gill-longer-4"]
    assert longer.options[2:4] == ("--steps", "21") and longer.after == "align-gill-4"
    assert longer.options[4:] == runs["align-gill-4"].options[4:]
    assert get_profile("story").refiner.cmrm_blocks > 0


def _items(rights: dict[Arm, list[float]]) -> list[dict[Variant, dict[str, Tally]]]:
    count = len(next(iter(rights.values())))
    return [
        {Variant(arm, None): dict.fromkeys(SCORES, Tally(values[i], 1.0)) for arm, values in rights.items()}
        for i in range(count)
    ]


def test_a_gain_is_found_where_there_is_one_and_only_there() -> None:
    rng = np.random.default_rng(0)
    base = (rng.random(400) < 0.5).astype(float)
    better = np.maximum(base, rng.random(400) < 0.3)
    rights = {Arm.GILL: base, Arm.CMRM: base, Arm.COGM: better, Arm.BOTH: better}
    summary = summarise_arms(_items({arm: list(values) for arm, values in rights.items()}))
    gain = summary["against_gill"][Arm.COGM.value]["whole_scene"]
    assert gain["ci95"][0] > 0.05
    assert gain["value"] == pytest.approx(better.mean() - base.mean(), abs=1e-4)
    assert summary["against_gill"][Arm.CMRM.value]["whole_scene"] == {"value": 0.0, "ci95": [0.0, 0.0]}
    assert summary["against_cogm"][Arm.BOTH.value]["whole_scene"] == {"value": 0.0, "ci95": [0.0, 0.0]}
    assert summary["against_longer_cogm"][Arm.BOTH.value]["whole_scene"]["value"] is None
    assert summary["scores"][CEILINGS[0].value]["whole_scene"]["value"] is None
    report = markdown_report(summary)
    assert "not measured" in report and "| GILL + CMRM + COGM minus GILL + COGM |" in report
    assert summary["intervals"] in report
    (axes,) = chart(summary, "title").axes
    heights = sorted(bar.get_height() for bar in axes.patches)
    known = [s["value"] for found in summary["scores"].values() for s in found.values() if s["value"] is not None]
    assert heights == pytest.approx(sorted(known))


PLAN = Plan(Suite.STORIES, setting_of(Suite.STORIES, "1"), 3, 0, 0)


class FakeArms:
    """Draws the truth for every variant that is asked for, and writes down what was asked."""

    def __init__(self, seeds: Sequence[int], *, leave_out: Sequence[Arm] = ()) -> None:
        self.variants = tuple(v for v in variants(seeds) if v.arm not in leave_out)
        self.asked: list[tuple[Variant, ...]] = []

    def parameters(self) -> dict[str, int]:
        return {variant.arm.value: 7 for variant in self.variants if variant.seed is not None}

    def draw(self, item: BenchItem, seed: int, chosen: Sequence[Variant]) -> dict[Variant, Drawn]:
        self.asked.append(tuple(chosen))
        return dict.fromkeys(chosen, TruthPainter().draw(item, seed=seed, words=0))


SETTINGS = {"denoising steps": 8, "frozen": {"unet.safetensors": "a" * 64}, "arms": {"weights-gill-0": "b" * 64}}


def _draw(painter: FakeArms, kept: Path, settings: Mapping[str, Any] = SETTINGS) -> list[Any]:
    return draw_items(PLAN, painter, None, ItemRecords(kept, settings))  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_new_arm_is_drawn_alone_and_a_stopped_run_goes_on(tmp_path: Path) -> None:
    kept = tmp_path / "records.jsonl"
    older = FakeArms((0,), leave_out=[Arm.COGM_LONGER])
    assert len(_draw(older, kept)) == 3
    lines = kept.read_text().splitlines()
    assert json.loads(lines[0]) == {"settings": SETTINGS} and len(lines) == 4
    kept.write_text("\n".join(lines[:3]) + '\n{"number": 2, "vari')  # killed in the middle of the last
    newer = FakeArms((0,))
    items = _draw(newer, kept)
    new = Variant(Arm.COGM_LONGER, 0)
    assert newer.asked == [(new,), (new,), newer.variants]
    assert all(set(item) == set(newer.variants) for item in items)
    assert kept.read_text().count("settings") == 1
    again = FakeArms((0,))
    assert _draw(again, kept) == items and not again.asked


@pytest.mark.slow
def test_records_of_other_settings_are_refused_and_untold_ones_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = tmp_path / "records.jsonl"
    _draw(FakeArms((0,), leave_out=[Arm.COGM_LONGER]), kept)
    other = {**SETTINGS, "denoising steps": 20, "frozen": {"unet.safetensors": "c" * 64}}
    with pytest.raises(InputError, match=r"drawn with denoising steps 8, not 20 and another unet\.safetensors; give"):
        _draw(FakeArms((0,)), kept, other)
    assert not caplog.records
    untold = kept.read_text().splitlines()[1:]  # as files were before they told
    kept.write_text("\n".join(untold) + "\n")
    painter = FakeArms((0,))
    _draw(painter, kept, other)
    assert set(painter.asked) == {(Variant(Arm.COGM_LONGER, 0),)}
    assert [r.getMessage() for r in caplog.records if "3 records" in r.getMessage()] and len(caplog.records) == 1
    # what was drawn since tells, and is held to it
    assert kept.read_text().splitlines()[:3] == untold
    with pytest.raises(InputError, match="denoising steps 20, not 8"):
        _draw(FakeArms((0,)), kept)


def test_another_choice_of_seeds_is_no_difference() -> None:
    assert not differences({"arms": {"gill-0": "a" * 64}}, {"arms": {"gill-0": "a" * 64, "gill-1": "b" * 64}})
    assert differences({"arms": {"gill-0": "a" * 64}}, {"arms": {"gill-0": "b" * 64}}) == ["another gill-0"]


class FakeTrainer:
    """In place of `subprocess.run`: writes what the trainer's command would, and remembers the commands."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        told = dict(zip(command[3::2], command[4::2], strict=True))
        wanted = "alignment" if told["--step"] == "align" else told["--step"]
        (Path(told["--weights"]) / f"{wanted}.safetensors").write_bytes(b"trained")
        Path(told["--run"]).mkdir(exist_ok=True)
        (Path(told["--run"]) / "checkpoint.pt").write_bytes(b"checkpoint")
        return subprocess.CompletedProcess(command, 0)


FROZEN = {"clip.safetensors": "6c5a", "llm.gguf": "d" * 64}


def _train(folder: Path, *, steps: int = 7, precision: str = "bf16", frozen: Mapping[str, str] = FROZEN) -> list[str]:
    said: list[str] = []
    wanted = TrainingSteps(align=steps, grounder=9)
    start = CommonStart(folder / "own", ("--precision", precision), frozen)
    train_arms(folder, (0,), wanted, start, said.append)
    return said


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, FakeTrainer]:
    """A folder in which all arms of seed 0 were trained."""
    trainer = FakeTrainer()
    monkeypatch.setattr(train.subprocess, "run", trainer)
    (tmp_path / "own").mkdir()
    for part in ("clip", "vae", "unet"):
        (tmp_path / "own" / f"{part}.safetensors").write_bytes(part.encode())
    _train(tmp_path)
    assert len(trainer.commands) == 6
    return tmp_path, trainer


def test_arms_trained_alike_are_found_and_others_refused(trained: tuple[Path, FakeTrainer]) -> None:
    folder, trainer = trained
    told = json.loads((folder / "weights-gill-0" / SETTINGS_FILE).read_text())
    assert told["options"]["steps"] == "7" and told["options"]["precision"] == "bf16" and told["frozen"] == FROZEN
    assert all(line.endswith("done before") for line in _train(folder))
    for changed, words in (
        ({"steps": 8}, "align-gill-0 .* was trained with steps 7, not 8; give"),
        ({"precision": "fp32"}, "precision bf16, not fp32"),
        ({"frozen": {**FROZEN, "llm.gguf": "e" * 64}}, r"another llm\.gguf"),
    ):
        with pytest.raises(InputError, match=words):
            _train(folder, **changed)  # type: ignore[arg-type]
    # one that was begun with other options does not go on, either
    (folder / "weights-gill-0" / "alignment.safetensors").unlink()
    with pytest.raises(InputError, match="steps 7, not 8"):
        _train(folder, steps=8)
    assert len(trainer.commands) == 6
    _train(folder)
    assert len(trainer.commands) == 7


def test_the_unet_without_boxes_is_bound_to_the_one_it_goes_on_from(trained: tuple[Path, FakeTrainer]) -> None:
    folder, _ = trained
    told = json.loads((folder / "weights-caption-unet" / SETTINGS_FILE).read_text())
    assert told["frozen"]["unet.safetensors"] == hashlib.sha256(b"unet").hexdigest()
    (folder / "own" / "unet.safetensors").write_bytes(b"another")
    with pytest.raises(InputError, match=r"caption-unet .* was trained with another unet\.safetensors"):
        _train(folder)


def test_arms_that_do_not_tell_are_taken_with_one_warning(trained: tuple[Path, FakeTrainer]) -> None:
    folder, trainer = trained
    for path in folder.glob(f"weights-*/{SETTINGS_FILE}"):
        path.unlink()
    clip = {"clip.safetensors": hashlib.sha256(b"clip").hexdigest()}
    said = _train(folder, steps=8, precision="fp32", frozen=clip)
    assert sum("tells with which steps" in line for line in said) == 1
    assert said[0].startswith(
        "align-gill-0, align-cmrm-unordered-0, align-cmrm-0, grounder-0, align-gill-longer-0, caption-unet: no "
    )
    assert len(trainer.commands) == 6
    # their copy of CLIP is known, whatever they do not tell
    with pytest.raises(InputError, match=r"another clip\.safetensors"):
        _train(folder, frozen={"clip.safetensors": "f" * 64})
    assert not list(folder.glob(f"weights-*/{SETTINGS_FILE}"))


@pytest.mark.slow
def test_command_writes_table_figure_and_what_it_drew_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def painter(folder: Path, seeds: Sequence[int], *, steps: int) -> FakeArms:
        return FakeArms(seeds)

    monkeypatch.setattr(cli, "train_arms", lambda *_: None)
    monkeypatch.setattr(cli, "reading_files", lambda _: [])
    monkeypatch.setattr(cli, "ArmsPainter", painter)
    monkeypatch.setattr(cli, "drawing_settings", lambda *_: SETTINGS)
    monkeypatch.setattr(cli, "find_likeness", lambda: None)
    out = tmp_path / "ablation.json"
    options = ["--folder", str(tmp_path), "--items", "2", "--seeds", "0", "1", "--out", str(out)]
    assert cli.main(options) == 0
    found = json.loads(out.read_text())
    assert found["drawn_with"] == SETTINGS and list(found["by_seed"]["GILL + COGM"]) == ["0", "1"]
    assert found["scores"]["GILL, 3 times the steps + COGM"]["whole_scene"]["value"] == 1
    assert out.with_suffix(".md").read_text() in capsys.readouterr().out
    assert out.with_suffix(".png").stat().st_size > 0
    assert (tmp_path / "records-stories-8.jsonl").is_file()
    monkeypatch.setattr(cli, "drawing_settings", lambda *_: {**SETTINGS, "denoising steps": 9})
    assert cli.main(options) == 2
    assert "were drawn with denoising steps 8, not 9" in capsys.readouterr().err
