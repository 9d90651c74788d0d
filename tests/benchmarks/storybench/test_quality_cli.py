"""`python benchmarks/quality.py` on the tiny bundle: the object it prints, records, sheets and errors."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mgcc_benchmarks.bootstrap import NOTHING, Tally
from mgcc_benchmarks.storybench import evaluator as likeness
from mgcc_benchmarks.storybench.evaluation import (
    KeptRecords,
    Plan,
    Record,
    check_same_items,
    compare,
    read_kept,
    run_plan,
    summarise,
    worst,
)
from mgcc_benchmarks.storybench.painters import BundlePainter, Oracle, ReferencePainter, TruthPainter
from mgcc_benchmarks.storybench.quality_cli import LateBundlePainter, describe_bundle, main
from mgcc_benchmarks.storybench.scores import SCORES, TEXT_SCORES
from mgcc_ref.story.bench import Suite, bench_item
from mgcc_ref.story.bench_evaluator import Evaluator
from mgcc_ref.story.dialogues import DialogueSetting
from mgcc_ref.story.stories import Setting
from mgcc_ref.story.world.scene import render
from mgcc_ref.weights import save_module
from mgcc_runtime import Pipeline
from mgcc_runtime.bundle.folder import sha256_of
from mgcc_runtime.errors import BundleError, InputError

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "quality.py"
PLAN = Plan(Suite.STORIES, Setting.CAPTIONS_5_IMAGES_4, 3, 0, 0)


def check_form(found: dict[str, Any], *, items: int) -> None:
    """The design's form, exactly."""
    assert list(found) == ["suite", "setting", "items", "scores"]
    assert found["items"] == items
    assert set(found["scores"]) == set(SCORES)
    for score in found["scores"].values():
        assert set(score) == {"value", "ci95"}
        low, high = score["ci95"]
        if score["value"] is not None:
            assert low <= score["value"] <= high


@pytest.mark.slow
def test_script_prints_one_object_and_stores_the_machine(tiny_bundle: Path, tmp_path: Path) -> None:
    options = ["--items", "3", "--words", "4", "--out", tmp_path / "r.json", "--sheet", tmp_path / "s.png", "--json"]
    command = [sys.executable, SCRIPT, "--bundle", tiny_bundle, *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    check_form(found, items=3)
    assert (found["suite"], found["setting"]) == ("stories", "5+4")
    stored = json.loads((tmp_path / "r.json").read_text())
    assert stored["machine"]["cpu"] and stored["scores"] == found["scores"]
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.height > 3 * 256


@pytest.mark.slow
@pytest.mark.parametrize("more", [["--oracle", "boxes"], ["--suite", "dialogues", "--setting", "5"]])
def test_options(tiny_bundle: Path, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--bundle", str(tiny_bundle), "--items", "2", "--words", "0", "--out", str(tmp_path / "r.json")]
    sheet = ["--sheet", str(tmp_path / "worst.png"), "--worst", "1"]
    assert main([*arguments, *more, *sheet, "--json"]) == 0
    check_form(json.loads(capsys.readouterr().out), items=2)
    assert (tmp_path / "worst.png").stat().st_size > 0


@pytest.mark.slow
def test_reference_and_bundle_draw_the_same(tiny_bundle: Path, tmp_path: Path, capsys: Any) -> None:
    """Same weights, same noise: what is read from the pictures agrees."""
    shared = ["--items", "2", "--words", "0", "--out", str(tmp_path / "r.json"), "--json"]
    assert main(["--bundle", str(tiny_bundle), *shared]) == 0
    ours = json.loads(capsys.readouterr().out)["scores"]
    assert main(["--reference", "--profile", "tiny", *shared]) == 0
    theirs = json.loads(capsys.readouterr().out)["scores"]
    for name in ("object_recall", "background_accuracy", "sprite_psnr_db"):
        assert ours[name]["value"] == pytest.approx(theirs[name]["value"], abs=0.02)


def test_true_boxes_and_captions_leave_the_drawing_alone() -> None:
    """Two items of one scene are drawn alike, whatever their texts say of it."""
    painter = ReferencePainter("tiny", "random", Oracle.BOXES_AND_CAPTION, steps=1)
    shown = [bench_item(Suite.STORIES, setting, 4) for setting in (Setting.CAPTION_1, Setting.CAPTIONS_5)]
    assert shown[0].target == shown[1].target
    first, second = (painter.draw(item, seed=0, words=0) for item in shown)
    assert first.boxes == second.boxes
    assert first.image.tobytes() == second.image.tobytes()
    other = painter.draw(bench_item(Suite.STORIES, Setting.CAPTIONS_5, 5), seed=0, words=0)
    assert other.image.tobytes() != first.image.tobytes()
    assert "oracle boxes+caption" in painter.identity


def test_truth_scores_full_marks() -> None:
    scores = summarise(PLAN, run_plan(PLAN, TruthPainter(), None))["scores"]
    for name in ("object_recall", "object_precision", "position_accuracy", "background_accuracy", "whole_scene"):
        assert scores[name]["value"] == 1, name
    assert scores["clip_similarity"] == {"value": None, "ci95": [None, None]}


class Dying(TruthPainter):
    def __init__(self, after: int) -> None:
        self.left = after

    def draw(self, item, *, seed, words):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return super().draw(item, seed=seed, words=words)


def test_a_stopped_run_goes_on(tmp_path: Path) -> None:
    kept = tmp_path / "records.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_plan(PLAN, Dying(2), None, kept=kept)
    with kept.open("a") as file:
        file.write('{"number": 2, "tall')  # killed in the middle of a line
    resumed = run_plan(PLAN, Dying(1), None, kept=kept)
    assert resumed == run_plan(PLAN, TruthPainter(), None)
    other = Plan(Suite.DIALOGUES, DialogueSetting.ROUNDS_10, 3, 1, 0)
    with pytest.raises(InputError, match="another suite and setting and seed"):
        run_plan(other, TruthPainter(), None, kept=kept)


@pytest.mark.slow
def test_steps_are_drawn_and_never_mixed(tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept, out = tmp_path / "kept.jsonl", tmp_path / "r.json"
    shared = ["--bundle", str(tiny_bundle), "--items", "1", "--words", "0", "--out", str(out), "--resume", str(kept)]
    assert main([*shared, "--steps", "2"]) == 0
    assert json.loads(out.read_text())["run"]["painter"].endswith(", 2 steps")
    assert main([*shared, "--steps", "3"]) == 2
    assert "another painter" in capsys.readouterr().err
    assert main([*shared[:-2], "--steps", "0"]) == 2
    assert "steps" in capsys.readouterr().err


@pytest.mark.slow
def test_workers_score_as_one_process_does(tiny_bundle: Path, tmp_path: Path) -> None:
    found = []
    for name, more in (("one", []), ("two", ["--workers", "2", "--threads", "1"])):
        kept, out = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.json"
        shared = ["--bundle", str(tiny_bundle), "--items", "3", "--words", "2", "--resume", str(kept)]
        assert main([*shared, "--out", str(out), *more]) == 0
        found.append((json.loads(out.read_text())["scores"], sorted(kept.read_text().splitlines()[1:])))
    assert found[0] == found[1]


def _records(wholes: list[float], *, text: float = 0.0) -> dict[int, Record]:
    """Records whose scores are all `wholes`, and whose texts counted `text` names."""
    found = {}
    for number, whole in enumerate(wholes):
        tallies = dict.fromkeys(SCORES, Tally(whole, 1.0)) | dict.fromkeys(TEXT_SCORES, Tally(whole * text, text))
        found[number] = Record(number, tallies | {"clip_similarity": NOTHING})
    return found


def _kept(records: dict[int, Record], **changed: Any) -> KeptRecords:
    identity = {"painter": "another", "suite": "stories", "setting": "5+4", "seed": 0, "words": 0}
    return KeptRecords(Path("other.jsonl"), identity | changed, records)


def test_a_comparison_is_paired_and_counts_scenes_that_changed() -> None:
    plan = Plan(Suite.STORIES, Setting.CAPTIONS_5_IMAGES_4, 4, 0, 16)
    ours, theirs = _records([1, 1, 0, 1], text=2), _kept(_records([1, 0, 1, 0], text=2), words=16)
    check_same_items(plan, theirs)
    found = compare(plan, list(ours.values())[::-1], theirs)  # records come in any order
    assert found["run"]["painter"] == "another"
    assert found["differences"]["whole_scene"]["value"] == 0.25
    assert found["differences"]["text_names_right"]["value"] == 0.25
    assert found["whole_scenes"] == {"only_this": 2, "only_that": 1}
    assert "clip_similarity" not in found["differences"]  # nobody counted it
    same = compare(plan, list(ours.values()), _kept(ours, words=16))
    assert all(score == {"value": 0.0, "ci95": [0.0, 0.0]} for score in same["differences"].values())
    # other words, other texts: what pictures score is compared all the same
    for words, text in ((0, 0), (8, 2)):
        found = compare(plan, list(ours.values()), _kept(_records([1, 0, 1, 0], text=text), words=words))
        assert "whole_scene" in found["differences"] and not set(TEXT_SCORES) & found["differences"].keys()


@pytest.mark.parametrize(
    ("changed", "items", "message"),
    [
        ({"suite": "dialogues"}, 3, "are of suite dialogues, not stories; give"),
        ({"setting": "5", "seed": 2}, 3, r"are of setting 5, not 5\+4 and seed 2, not 0; give"),
        ({}, 2, "hold 2 items, this run has 3, and number 2 is in one of the two alone; give the same --items"),
        ({}, 5, "hold 5 items, this run has 3, and number 3"),
    ],
)
def test_only_the_same_items_are_compared(changed: dict[str, Any], items: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_same_items(PLAN, _kept(_records([1.0] * items), **changed))


def test_records_that_cannot_be_read_are_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl do not exist; give --against a file"):
        read_kept(tmp_path / "none.jsonl", "--against")
    for text in ("", "[1]\n", '{"number": 0}\n{"number": 0, "tallies": {"a": {}}}\n'):
        (tmp_path / "broken.jsonl").write_text(text)
        with pytest.raises(InputError, match=r"broken\.jsonl cannot be read .*; give another --against file"):
            read_kept(tmp_path / "broken.jsonl", "--against")


@pytest.mark.slow
def test_finished_runs_are_compared_without_opening_the_bundle(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two, out = tmp_path / "one.jsonl", tmp_path / "two.jsonl", tmp_path / "r.json"
    shared = ["--bundle", str(tiny_bundle), "--items", "3", "--out", str(out)]
    assert main([*shared, "--words", "0", "--resume", str(one)]) == 0
    assert main([*shared, "--words", "2", "--resume", str(two), "--steps", "2"]) == 0
    monkeypatch.setattr(Pipeline, "load", lambda *_, **__: pytest.fail("the bundle was opened"))
    capsys.readouterr()
    finished = [*shared, "--words", "2", "--resume", str(two), "--steps", "2", "--against", str(one)]
    assert main([*finished, "--workers", "2"]) == 0
    assert "this run minus" in (shown := capsys.readouterr().out) and "whole in this run alone: " in shown
    stored = json.loads(out.read_text())
    assert stored["against"]["run"] == json.loads(one.read_text().splitlines()[0])
    # one run wrote no words, so their texts are not compared
    assert set(stored["against"]["differences"]) <= set(SCORES) - set(TEXT_SCORES)
    assert main([*finished, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["against"] == stored["against"]
    assert main([*finished[:3], "2", *finished[4:]]) == 2
    assert "hold 3 items, this run has 2" in capsys.readouterr().err


@pytest.mark.slow
def test_a_result_names_the_weights_it_is_of(tiny_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    assert main(["--bundle", str(tiny_bundle), "--items", "1", "--words", "0", "--out", str(out)]) == 0
    found = json.loads(out.read_text())["scored"]
    assert (found["profile"], found["target"], found["weights"]) == ("tiny", "cpu", "random")
    assert set(found["stages"]) == {"vision_encoder", "llm", "refiner", "grounder", "unet", "solver", "vae_decoder"}
    for stage in found["stages"].values():
        assert stage["precision"] == "fp32" and stage["sha256"] == sha256_of(tiny_bundle / stage["file"])
    assert {"embed_tokens.npy", "schedule.json"} <= found["files"].keys()
    assert not [name for name in found["files"] if name.startswith("golden")]
    assert found["manifest_sha256"] == sha256_of(tiny_bundle / "manifest.json")
    assert found == describe_bundle(tiny_bundle)


@pytest.mark.slow
def test_a_late_painter_is_the_bundles_own(tiny_bundle: Path, tmp_path: Path) -> None:
    for steps in (None, 2):
        with Pipeline.load(tiny_bundle) as pipeline, LateBundlePainter(tiny_bundle, Oracle.BOXES, steps, 0) as late:
            assert late.identity == BundlePainter(pipeline, Oracle.BOXES, steps).identity
    copied = tmp_path / "copy"
    shutil.copytree(tiny_bundle, copied)
    manifest = json.loads((copied / "manifest.json").read_text())
    with LateBundlePainter(copied, Oracle.NOTHING, None, 0) as late:
        # built anew of the same parts: records of it go on
        again = manifest | {"built_at": "2001-01-01T00:00:00Z", "memory_estimate_bytes": 1}
        (copied / "manifest.json").write_text(json.dumps(again))
        assert LateBundlePainter(copied, Oracle.NOTHING, None, 0).identity == late.identity
        again["sampling"] = {**manifest["sampling"], "steps": manifest["sampling"]["steps"] - 1}
        (copied / "manifest.json").write_text(json.dumps(again))
        with pytest.raises(BundleError, match="when this run started; start again"):
            late.open()


def test_worst_come_first() -> None:
    records = run_plan(PLAN, TruthPainter(), None)
    spoiled = Record(7, {n: type(t)(0.0, t.counted) for n, t in records[1].tallies.items()})
    assert worst([records[0], spoiled, records[2]], 1) == [7]


@pytest.mark.slow
def test_ceiling_needs_no_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "ceiling.json"
    assert main(["--ceiling", "--items", "2", "--weights", str(tmp_path), "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ceiling"]["truth"]["objects_right"]["value"] == 1
    assert {"blur_1_px", "noise_10"} <= found["ceiling"].keys()


def test_likeness_is_a_cosine_and_its_absence_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "evaluator.safetensors"
    assert likeness.find_likeness(path) is None
    assert "clip_similarity is null" in caplog.text and "--step evaluator" in caplog.text
    torch.manual_seed(0)
    save_module(Evaluator(), path)
    measure = likeness.find_likeness(path)
    assert measure is not None
    pictures = [Image.fromarray(render(bench_item(PLAN.suite, PLAN.setting, n).target)) for n in range(2)]
    assert measure(pictures[0], pictures[0]) == pytest.approx(1, abs=1e-5)
    assert measure(*pictures) < 0.99999


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --bundle DIR or --reference"),
        (["--bundle", "x", "--reference"], "give either --bundle DIR or --reference"),
        (["--bundle", "x", "--setting", "10"], "setting '10' is none of suite stories"),
        (["--reference", "--workers", "2"], "more than one need --bundle DIR"),
        (["--bundle", "x", "--items", "0"], "items is 0, expected a whole number from 1"),
        (["--bundle", "x", "--worst", "3"], "needs --sheet FILE.png"),
        (["--bundle", "/no/such/bundle"], "/no/such/bundle"),
        (["--bundle", "x", "--against", "/no/such.jsonl"], "/no/such.jsonl do not exist"),
        (["--ceiling", "--against", "x.jsonl"], "--against compares drawn pictures"),
        (["--bundle", "x", "--suite", "free", "--split", "test"], "suite free is validation and has no test split"),
        (["--bundle", "x", "--oracle", "boxes+caption"], "give --reference"),
        (["--ceiling", "--split", "test"], "--ceiling judges no weights"),
        (["--bundle", "x", "--look-again", "because"], "--look-again is of --split test"),
        (["--bundle", "x", "--out", "r.txt"], "r.txt does not end in .json"),
    ],
)
def test_bad_arguments_exit_with_two(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    assert message in capsys.readouterr().err
