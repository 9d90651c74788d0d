"""Every training step, end to end, with the tiny profile: the chain of commands that makes a weights folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mgcc_ref.config import get_profile
from mgcc_ref.model import load_folder, load_model
from mgcc_ref.networks.layout_map import PAINTED_CHANNELS
from mgcc_ref.networks.unet import POSITION_CHANNELS
from mgcc_ref.prompting import closing_ids
from mgcc_ref.train import caption_map, context_store, layout_painter, visual_projection
from mgcc_ref.train.__main__ import main
from mgcc_ref.train.features import Reading, point_ends, read_conversation
from mgcc_ref.train.recipe import __main__ as recipe
from mgcc_ref.train.requests import training_conversation
from mgcc_ref.train.steps import align, caption_unet, clip, draw, fresh_grounder, grounder, student, unet, vae
from mgcc_runtime.errors import EXIT_INTERRUPTED

STEPS = ("vae", "decoder", "clip", "unet", "caption_unet", "student", "align", "draw", "grounder")


@pytest.fixture(scope="module")
def small_sets() -> pytest.MonkeyPatch:
    """The real steps on few scenes and requests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae, "BATCH_SIZE", 4)
        patch.setattr(clip, "BATCH_SIZE", 8)
        patch.setattr(unet, "BATCH_SIZE", 4)
        patch.setattr(unet, "CACHED_SCENES", 200)
        patch.setattr(layout_painter, "STEPS", 20)
        patch.setattr(layout_painter, "TEXTURE_STEPS", 5)
        patch.setattr(caption_unet, "BATCH_SIZE", 4)
        patch.setattr(caption_unet, "CACHED_SCENES", 200)
        patch.setattr(caption_map, "SCENES", 100)
        patch.setattr(caption_map, "STEPS", 10)
        patch.setattr(caption_map, "HELD_BACK_SCENES", 20)
        patch.setattr(student, "TRAJECTORIES", 8)
        patch.setattr(student, "HELD_BACK_TRAJECTORIES", 4)
        patch.setattr(student, "BATCH_SIZE", 4)
        patch.setattr(context_store, "GROUP_SIZE", 4)
        patch.setattr(align, "GROUPS", 3)
        patch.setattr(align, "HELD_BACK_GROUPS", 1)
        patch.setattr(visual_projection, "SCENES", 200)
        patch.setattr(visual_projection, "HELD_BACK_SCENES", 100)
        patch.setattr(visual_projection, "STEPS", 20)
        patch.setattr(draw, "GROUPS", 2)
        patch.setattr(draw, "HELD_BACK_GROUPS", 1)
        patch.setattr(grounder, "BATCH_SIZE", 4)
        patch.setattr(grounder, "TRAINING_CONVERSATIONS", 12)
        patch.setattr(grounder, "EMBEDDED_CONVERSATIONS", 12)
        patch.setattr(grounder, "WRITTEN_CONVERSATIONS", 12)
        patch.setattr(grounder, "EMBEDDED_WRITTEN_CONVERSATIONS", 12)
        patch.setattr(grounder, "HELD_BACK_CONVERSATIONS", 6)
        patch.setattr(grounder.FeatureStore, "SHARD", 6)
        patch.setattr(fresh_grounder, "HELD_BACK_CONVERSATIONS", 6)
        yield patch


@pytest.fixture(scope="module")
def trained(small_sets: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/ and weights/ of all steps."""
    folder = tmp_path_factory.mktemp("training")
    for step in STEPS:
        arguments = ["--profile", "tiny", "--step", step, "--steps", "3"]
        assert main([*arguments, "--run", str(folder / "runs" / step), "--weights", str(folder / "weights")]) == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_each_step_leaves_metrics_a_picture_and_a_checkpoint(trained: Path, step: str) -> None:
    run = trained / "runs" / step
    assert (run / "checkpoint.pt").exists()
    assert list(run.glob("step-*.png"))
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any(key.startswith("eval_") for entry in metrics for key in entry)


@pytest.mark.slow
def test_the_recipe_makes_a_whole_set_and_goes_on_where_it_stopped(
    small_sets: pytest.MonkeyPatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--profile", "tiny", "--weights", str(tmp_path / "weights"), "--run", str(tmp_path / "runs")]
    asked: list[str] = []

    def train(arguments: list[str]) -> int:
        step = arguments[arguments.index("--step") + 1]
        asked.append(step)
        return 1 if step == "align" and asked.count("align") == 1 else main(arguments)

    monkeypatch.setattr(recipe, "train", train)
    assert recipe.main([*options, "--steps", "2"]) == 1
    assert recipe.main([*options, "--steps", "2"]) == 0
    assert asked == ["clip", "vae", "decoder", "unet", "student", "align", "align", "draw", "grounder"]
    load_folder(load_model("tiny"), tmp_path / "weights")
    assert recipe.main([*options, "--steps", "2"]) == 0
    assert capsys.readouterr().out.count("is finished") == 5 + len(recipe.RECIPE)


def test_the_recipe_starts_from_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "clip.safetensors").touch()
    options = ["--profile", "tiny", "--weights", str(tmp_path), "--run", str(tmp_path / "runs")]
    assert recipe.main(options) == 2
    assert "holds weights, expected none" in capsys.readouterr().err


def test_after_a_trial_of_few_steps_no_step_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def train(arguments: list[str]) -> int:
        asked.append(arguments[arguments.index("--steps") + 1])
        Path(arguments[arguments.index("--run") + 1]).mkdir(parents=True, exist_ok=True)
        return 0

    monkeypatch.setattr(recipe, "train", train)
    options = ["--profile", "tiny", "--weights", str(tmp_path / "weights"), "--run", str(tmp_path / "runs")]
    for _ in range(2):
        assert recipe.main([*options, "--steps", "2"]) == 0
    assert recipe.main(options) == 0
    assert asked == ["2"] * len(recipe.RECIPE) + [str(step.steps) for step in recipe.RECIPE]


@pytest.mark.parametrize("rate", ["0", "-1", "2", "nan"])
def test_a_learning_rate_is_a_small_number(rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--profile", "tiny", "--step", "clip", f"--learning-rate={rate}"]) == 2
    assert "expected 0 to 1" in capsys.readouterr().err


@pytest.mark.slow
def test_a_grounder_reads_the_visual_tokens_of_the_alignment_beside_it(trained: Path, tmp_path: Path) -> None:
    """In a new run folder another projection would be fitted, and its tokens are not those of the alignment."""
    model = align.load_frozen(get_profile("tiny"), trained / "weights", tmp_path)
    kept = load_file(trained / "weights" / "alignment.safetensors")
    for name, value in model.vision_encoder.projection.state_dict().items():
        torch.testing.assert_close(value.half(), kept[f"visual_projection.{name}"], rtol=0, atol=0)
    assert not list(tmp_path.iterdir()), "nothing was fitted"


@pytest.mark.slow
def test_an_alignment_without_the_distance_is_trained_by_the_command(
    trained: Path, small_sets: pytest.MonkeyPatch
) -> None:
    weights = trained / "unordered"
    weights.mkdir()
    shutil.copyfile(trained / "weights" / "clip.safetensors", weights / "clip.safetensors")
    arguments = ["--profile", "tiny", "--step", "align", "--steps", "1", "--refinement", "cmrm-unordered"]
    run = ["--learning-rate", "1e-4", "--run", str(trained / "runs" / "unordered"), "--weights", str(weights)]
    assert main([*arguments, *run]) == 0
    found, ordered = (load_file(f / "alignment.safetensors") for f in (weights, trained / "weights"))
    assert set(ordered) - set(found) == {"refiner.from_end.weight", "refiner.from_end.bias"}


def test_the_recipe_says_what_each_step_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert recipe.main(["--weights", str(tmp_path / "none"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert all(step.name in shown for step in recipe.RECIPE)
    assert shown.count(" h\n") + shown.count(" h ") >= 2 * len(recipe.RECIPE)
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_the_weights_fill_a_model_and_change_it(trained: Path) -> None:
    fresh, model = load_model("tiny"), load_model("tiny")
    load_folder(model, trained / "weights")
    for part in ("clip", "autoencoder", "unet", "refiner", "grounder"):
        before = torch.cat([p.flatten() for p in getattr(fresh, part).parameters()])
        after = torch.cat([p.flatten() for p in getattr(model, part).parameters()])
        assert torch.isfinite(after).all()
        assert not torch.equal(before, after), part


@pytest.mark.slow
def test_the_decoder_step_leaves_the_latents_alone_in_bf16(trained: Path) -> None:
    run, folder = trained / "runs" / "decoder-again", trained / "weights-decoder"
    shutil.copytree(trained / "weights", folder)
    arguments = ["--profile", "tiny", "--step", "decoder", "--steps", "2", "--precision", "bf16"]
    command = [sys.executable, "-m", "mgcc_ref.train", *arguments, "--run", str(run), "--weights", str(folder)]
    subprocess.run(command, check=True, capture_output=True)  # accelerate's precision is one a process
    before, after = (load_file(f / "vae.safetensors") for f in (trained / "weights", folder))
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"decoder"}


@pytest.mark.slow
@pytest.mark.parametrize("step", [step for step in STEPS if step != "decoder"])
def test_going_on_starts_from_the_weights_that_are_there(
    trained: Path, step: str, small_sets: pytest.MonkeyPatch
) -> None:
    """After no step at all, the weights are those that it started from."""
    folder, beside = trained / f"weights-on-{step}", trained / f"weights-on-{step}-fast"
    shutil.copytree(trained / "weights", folder)
    shutil.copytree(trained / "weights-fast", beside)
    arguments = ["--profile", "tiny", "--step", step, "--go-on", "--steps", "0"]
    run = trained / f"runs-{step}" / step
    if step == "grounder":
        shutil.copytree(trained / "runs" / "features", run.parent / "features")
    assert main([*arguments, "--run", str(run), "--weights", str(folder)]) == 0
    for before in [*(trained / "weights").iterdir(), *(trained / "weights-fast").iterdir()]:
        after = (beside if "fast" in before.parent.name else folder) / before.name
        for name, value in load_file(before).items():
            torch.testing.assert_close(load_file(after)[name], value, rtol=0, atol=0)


@pytest.mark.slow
def test_a_unet_goes_on_with_another_painter(trained: Path) -> None:
    """All of it stays but what was painted, which counts for nothing at first; textures come from pixels."""
    folder = trained / "weights-textures"
    shutil.copytree(trained / "weights", folder)
    arguments = ["--profile", "tiny", "--step", "unet", "--painter", "textures", "--go-on"]
    run = ["--run", str(trained / "runs-textures" / "unet"), "--weights", str(folder)]
    assert main([*arguments, "--steps", "0", *run]) == 0
    before, after = (load_file(f / "unet.safetensors") for f in (trained / "weights", folder))
    painted = slice(8 + POSITION_CHANNELS, 8 + POSITION_CHANNELS + PAINTED_CHANNELS)
    assert not after["unet.conv_in.weight"][:, painted].any()
    before["unet.conv_in.weight"][:, painted] = 0
    kept = {name: value for name, value in before.items() if "painter" not in name}
    assert kept.keys() == {name for name in after if "painter" not in name}
    for name, value in kept.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=0)
    assert main([*arguments, "--steps", "2", *run]) == 0
    learned = load_file(folder / "unet.safetensors")
    assert learned["unet.conv_in.weight"][:, painted].any()
    textures = "layout_map.painter.texture.weight"
    assert torch.equal(learned[textures], after[textures]), "pixels said what they are"


@pytest.mark.slow
def test_the_grounder_goes_on_with_fresh_conversations(trained: Path) -> None:
    """Read in the step; the language model is in no checkpoint."""
    folder, run = trained / "weights-fresh", trained / "runs" / "fresh"
    shutil.copytree(trained / "weights", folder)
    arguments = ["--profile", "tiny", "--step", "grounder", "--fresh", "--go-on", "--batch-size", "6"]
    assert main([*arguments, "--steps", "3", "--run", str(run), "--weights", str(folder)]) == 0
    before, after = (load_file(f / "grounder.safetensors") for f in (trained / "weights", folder))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    saved = torch.load(run / "checkpoint.pt", weights_only=True)["objective"]
    assert {name.split(".")[0] for name in saved} == {"head"}
    scores = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any("eval_whole" in entry for entry in scores)


def test_what_is_read_fresh_is_what_the_kept_features_hold() -> None:
    """One request, read in a padded batch on the way, against its conversation read whole."""
    model = load_model("tiny")
    conversations = [training_conversation(1, i) for i in range(3)]
    requests = [c.request(len(c.points) - 1) for c in conversations]
    step = fresh_grounder.FreshGrounderStep.__new__(fresh_grounder.FreshGrounderStep)
    step.model, step._labels = model, model.label_embeddings
    batch = step._packed(requests)
    read = fresh_grounder.ReadingObjective(model).read(batch)
    for b, conversation in enumerate(conversations):
        rows = read_conversation(model, conversation)
        kept = Reading(rows, point_ends(model, conversation), len(closing_ids(model))).context(
            -1 + len(conversation.points)
        )
        found = read[b][batch["mask"][b]]
        torch.testing.assert_close(found, torch.from_numpy(kept).float(), rtol=2e-2, atol=2e-2)
        assert not read[b][~batch["mask"][b]].any()


def test_packed_targets_come_back() -> None:
    model = load_model("tiny")
    requests = [training_conversation(2, i).request(0) for i in range(5)]
    every = [grounder.scene_targets(model, r, 90, model.label_embeddings) for r in requests]
    for one, again in zip(every, grounder.Targets.unpacked(grounder.Targets.packed(every)), strict=True):
        assert (one.labels, one.mentions) == (again.labels, again.mentions)
        assert torch.equal(one.boxes, again.boxes) and torch.equal(one.phrases, again.phrases)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--step", "vae", "--workers", "2"], "not of vae"),
        (["--step", "unet", "--fresh"], "--fresh is of step grounder"),
        (["--step", "grounder", "--fresh", "--scenes", "9"], "no --scenes"),
        (["--step", "unet", "--batch-size", "0"], "--batch-size is 0, expected a positive number"),
    ],
)
def test_sizes_of_the_wrong_step_are_refused(options: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--profile", "tiny", *options]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.slow
def test_a_finished_step_is_not_trained_again(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained / "runs" / "clip"
    before = len((run / "metrics.jsonl").read_text().splitlines())
    arguments = ["--profile", "tiny", "--step", "clip", "--steps", "3", "--run", str(run)]
    assert main([*arguments, "--weights", str(trained / "again")]) == 0
    assert "wrote" in capsys.readouterr().out
    after = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(after) == before + 1, "one more evaluation, no more training"
    first, again = (trained / f / "clip.safetensors" for f in ("weights", "again"))
    assert first.read_bytes() == again.read_bytes()


def test_visual_targets_read_like_the_labels_words() -> None:
    from mgcc_ref.story.world.scene import Background, Scene, place

    model = load_model("tiny")
    scene = Scene(Background.SNOW, (place("fox", (0.8, 0.2), 30),))
    tokens = visual_projection.visual_targets(model, [scene])[0]
    fox = align.word_embedding(model, "fox")
    likeness = torch.cosine_similarity(tokens, fox.unsqueeze(0))
    assert int(likeness.argmax()) == 1, "top right is the second quadrant"


def test_an_unknown_profile_exits_with_two() -> None:
    assert main(["--profile", "huge", "--step", "vae"]) == 2
    assert get_profile("tiny").name == "tiny"


@pytest.mark.slow
def test_several_processes_train_together(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Each draws batches of its own, and one of them writes."""
    train, taught = ["--profile", "tiny", "--step", "vae", "--steps", "3"], []
    for processes in (1, 2):
        run, weights = tmp_path / f"run-{processes}", tmp_path / f"weights-{processes}"
        assert main([*train, "--processes", str(processes), "--run", str(run), "--weights", str(weights)]) == 0
        said = capfd.readouterr().out
        assert said.count(f"in {processes} processes") == processes - 1
        assert said.count("wrote ") == 1, "one process writes the weights"
        assert processes == 1 or said.count("held back: ") == 1, "and one tells of it"
        taught.append(load_file(weights / "vae.safetensors"))
    one, two = (torch.cat([found[name].float().flatten() for name in sorted(found)]) for found in taught)
    assert not torch.equal(one, two), "a batch of two processes is another one"


@pytest.mark.slow
def test_several_processes_end_together_and_go_on(tmp_path: Path) -> None:
    """Ctrl-C reaches all of them; the last checkpoint is where the same command goes on."""
    train = ["--profile", "tiny", "--step", "vae", "--processes", "2", "--weights", str(tmp_path / "weights")]
    run = tmp_path / "run"
    assert main([*train, "--run", str(run), "--steps", "2"]) == 0
    command = [sys.executable, "-m", "mgcc_ref.train", *train, "--run", str(run), "--steps", "100000"]
    with (tmp_path / "said").open("wb") as said:
        started = subprocess.Popen(command, stdout=said, stderr=said, env=os.environ | {"PYTHONUNBUFFERED": "1"})
        for _ in range(600):
            if b"step 20/100000" in (tmp_path / "said").read_bytes():
                break
            time.sleep(0.2)
        started.send_signal(signal.SIGINT)
        assert started.wait(timeout=60) == EXIT_INTERRUPTED
    told = (tmp_path / "said").read_text("utf-8")
    assert "resumed at step 2" in told and told.count("the last checkpoint is kept") == 1
    assert "Traceback" not in told and "elastic" not in told
    assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] >= 2


def test_what_one_of_several_processes_says_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    nowhere = str(tmp_path / "nowhere")
    asked = ["--profile", "tiny", "--step", "unet", "--weights", nowhere, "--run", str(tmp_path), "--processes", "2"]
    assert main(asked) == 2
    said = capfd.readouterr().err
    assert "are missing" in said and "Traceback" not in said and "elastic" not in said


@pytest.mark.slow
def test_another_set_of_conversations_is_another_one(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = trained / "runs"
    weights = shutil.copytree(trained / "weights", trained / "weights-set-1")
    arguments = ["--profile", "tiny", "--step", "grounder", "--steps", "1", "--weights", str(weights)]
    assert main([*arguments, "--conversations", "1", "--run", str(runs / "grounder-set-1")]) == 0
    for folder, differ in (("train", True), ("held-back", False)):
        first, second = (
            b"".join(f.read_bytes() for f in sorted((runs / features / folder).iterdir()))
            for features in ("features", "features-1")
        )
        assert (first != second) is differ, folder
    for wrong in (["--conversations", "5"], ["--step", "clip", "--conversations", "1"]):
        assert main([*arguments, *wrong]) == 2
        assert "--conversations is" in capsys.readouterr().err
