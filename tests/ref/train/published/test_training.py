"""Training around published weights, by the command: every real format, resume, parts, and what is refused."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mgcc_ref.config import get_profile
from mgcc_ref.model import load_model
from mgcc_ref.parts import load_parts
from mgcc_ref.pipeline import ReferencePipeline
from mgcc_ref.train.__main__ import STEPS, main
from mgcc_ref.train.data.sample import DataError
from mgcc_ref.train.data.source import DataFormat, DataSource, open_samples
from mgcc_ref.train.loop import Batch, Trainer
from mgcc_ref.train.published import command
from mgcc_ref.train.published.align import PublishedAlignStep
from mgcc_ref.train.published.parts import Setup, Start
from mgcc_ref.train.published.recipes import ALIGN, RECIPES
from tests.captioned import SCENES, write_cc3m, write_coco, write_flickr30k, write_webdataset

ROOT = Path(__file__).parents[4]
WRITERS: dict[DataFormat, Callable[[Path], Path]] = {
    DataFormat.CC3M: write_cc3m,
    DataFormat.WEBDATASET: write_webdataset,
    DataFormat.COCO: write_coco,
    DataFormat.FLICKR30K: write_flickr30k,
}


def copied(weights: Path, folder: Path) -> Path:
    """The weights folder with what a test trains in it."""
    return Path(shutil.copytree(weights, folder))


def train(weights: Path, run: Path, step: str, data: str, *more: str, profile: str = "profile") -> int:
    return main([
        "--profile", str(weights / f"{profile}.json"), "--step", step, "--weights", str(weights), "--run", str(run),
        "--data", data, "--precision", "fp32", *more,
    ])  # fmt: skip


def losses(run: Path) -> list[dict[str, float]]:
    told = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [entry for entry in told if "loss" in entry]


@pytest.fixture
def frozen_bits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Holds the frozen parts of the run that follows against themselves, before and after."""
    seen: list[tuple[Start, list[Tensor]]] = []
    for module in ("align", "grounder"):
        from importlib import import_module

        found = import_module(f"mgcc_ref.train.published.{module}")
        real = found.begin

        def begin(setup: Setup, parts: tuple[str, ...], real: Callable[..., Start] = real) -> Start:
            start = real(setup, parts)
            seen.append((start, [value.clone() for value in values(start)]))
            return start

        monkeypatch.setattr(found, "begin", begin)

    def values(start: Start) -> list[Tensor]:
        blocks = [value for block in start.llm._kept for value in block.state_dict().values()]
        tables = [value for name, value in start.model.llm.state_dict().items() if not name.startswith("image_tokens")]
        return [*blocks, *tables, *start.model.clip.state_dict().values()]

    def check() -> None:
        ((start, before),) = seen
        assert len(before) > 60
        assert all(torch.equal(a, b) for a, b in zip(values(start), before, strict=True))
        seen.clear()

    yield check
    assert not seen, "nobody looked"


@pytest.fixture
def every_step_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, recipe in RECIPES.items():
        rate = 3e-3 if name == "align" else recipe.options.learning_rate  # at 3e-3 the grounder's presence wanders
        options = replace(recipe.options, log_every_steps=1, learning_rate=rate)
        monkeypatch.setitem(command.RECIPES, name, replace(recipe, options=options))


def fallen(run: Path, name: str) -> float:
    """The mean of a loss over the last ten steps, as part of that over the first."""
    told = [entry[name] for entry in losses(run)]
    return sum(told[-10:]) / sum(told[:10])


@pytest.mark.usefixtures("every_step_told")
@pytest.mark.parametrize(
    ("kind", "profile"),
    [
        (DataFormat.CC3M, "gill"),
        pytest.param(DataFormat.WEBDATASET, "gill", marks=pytest.mark.slow),
        pytest.param(DataFormat.COCO, "profile", marks=pytest.mark.slow),
        pytest.param(DataFormat.FLICKR30K, "profile", marks=pytest.mark.slow),
    ],
)
def test_alignment_learns_a_handful_by_heart(
    kind: DataFormat, profile: str, weights: Path, tmp_path: Path, frozen_bits: Callable[[], None]
) -> None:
    """Each loss falls in each real format; the language model and CLIP stay the same bits."""
    place, folder, run = WRITERS[kind](tmp_path / "data"), copied(weights, tmp_path / "weights"), tmp_path / "run"
    done = train(folder, run, "align", f"{kind}={place}", "--steps", "50", "--batch-size", "4", profile=profile)
    assert done == 0
    frozen_bits()
    told = {name: fallen(run, name) for name in ("words", "drawn_words", "drawn")}
    assert told["words"] < 0.95 and told["drawn_words"] < 0.95 and told["drawn"] < 0.8, told
    assert list(run.glob("step-*.png"))
    (folder / "grounder.safetensors").write_bytes(b"")
    parted = load_parts(get_profile(str(folder / f"{profile}.json")), folder)
    tokens = parted.model.llm.image_tokens
    assert torch.equal(tokens.head.weight, tokens.embeddings), "OPT ties them"
    table = parted.model.llm.embed_tokens.weight.norm(dim=-1).mean()
    torch.testing.assert_close(tokens.embeddings.norm(dim=-1), table.expand(8), rtol=2e-3, atol=0)


@pytest.fixture(scope="session")
def aligned(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights folder with an alignment, of two steps."""
    folder = tmp_path_factory.mktemp("aligned")
    place = write_coco(folder / "data")
    copied(weights, folder / "weights")
    assert train(folder / "weights", folder / "run", "align", f"coco={place}", "--steps", "2", "--batch-size", "2") == 0
    return folder / "weights"


@pytest.mark.slow
@pytest.mark.usefixtures("every_step_told")
@pytest.mark.parametrize("kind", [DataFormat.COCO, DataFormat.FLICKR30K])
def test_the_grounder_learns_boxes_of_any_phrase(
    kind: DataFormat, aligned: Path, tmp_path: Path, frozen_bits: Callable[[], None]
) -> None:
    """There is no list of labels; loss and error of the boxes fall."""
    place, folder, run = WRITERS[kind](tmp_path / "data"), copied(aligned, tmp_path / "weights"), tmp_path / "run"
    assert train(folder, run, "grounder", f"{kind}={place}", "--steps", "300", "--batch-size", "5") == 0
    frozen_bits()
    told = {name: fallen(run, name) for name in ("loss", "centre_l1")}
    assert told["loss"] < 0.7 and told["centre_l1"] < 0.7, told
    model = load_model(get_profile(str(folder / "profile.json")), folder)
    learnt = open_samples(DataSource(kind, place))[0].caption
    result = ReferencePipeline(model).generate([learnt], seed=0, steps=4, words=1)
    assert result.image.size == (64, 64)
    assert len(result.layout.objects) == 1, "the caption names one thing, and it has learnt it"


def kept_bits(folder: Path) -> bytes:
    return (folder / "alignment.safetensors").read_bytes()


def test_a_killed_run_goes_on_to_the_same_bits(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    data = f"coco={write_coco(tmp_path / 'data')}"
    whole, killed = copied(weights, tmp_path / "whole"), copied(weights, tmp_path / "killed")
    options = ("--steps", "5", "--batch-size", "2")
    assert train(whole, tmp_path / "run-whole", "align", data, *options) == 0
    real, calls = Trainer._train_step, []

    def killing(self: Trainer, batches: Iterator[tuple[int, Batch]]) -> tuple[float, dict[str, float]]:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(1)
        found = real(self, batches)
        if len(calls) == 2:  # the last that is kept
            self.done_steps += 1
            self._save_checkpoint()
            self.done_steps -= 1
        return found

    monkeypatch.setattr(Trainer, "_train_step", killing)
    assert train(killed, tmp_path / "run-killed", "align", data, *options) == 130
    monkeypatch.setattr(Trainer, "_train_step", real)
    assert train(killed, tmp_path / "run-killed", "align", data, *options) == 0
    assert "resumed at step 2" in caplog.text
    assert kept_bits(killed) == kept_bits(whole)
    assert train(killed, tmp_path / "run-killed", "align", data, "--steps", "5", "--batch-size", "4") == 2
    assert "was started with batch 2, not 4" in capsys.readouterr().err


@pytest.mark.usefixtures("every_step_told")
def test_a_batch_in_parts_teaches_what_it_teaches_at_once(weights: Path, tmp_path: Path) -> None:
    """Captions of the same length, so that a mean over the parts is that over the batch."""
    data = f"cc3m={write_cc3m(tmp_path / 'data', ending=' in a land far away')}"
    told = []
    for micro in ("4", "2"):
        folder, run = copied(weights, tmp_path / f"weights-{micro}"), tmp_path / f"run-{micro}"
        sizes = ("--steps", "4", "--batch-size", "4", "--micro-batch", micro)
        assert train(folder, run, "align", data, *sizes) == 0
        told.append([entry["loss"] for entry in losses(run)])
    assert len(told[0]) == 4
    assert told[1] == pytest.approx(told[0], rel=1e-4)


def test_every_sample_is_seen_once_an_epoch_in_however_many_parts(setup: Setup, tmp_path: Path) -> None:
    step = PublishedAlignStep(
        setup, open_samples(DataSource(DataFormat.COCO, write_coco(tmp_path))), replace(ALIGN, batch=5)
    )
    draws, seen = step._draws, list[str]()
    assert draws.count == len(SCENES) - 1
    for parts in (1, 5):
        positions = [list(draws.part(3, 5, part, parts)) for part in range(parts)]
        assert [p for part in positions for p in part] == list(range(15, 20))
    for position in draws.part(0, 5, 0, 1):
        draws.at(position, lambda sample: seen.append(sample.caption) or sample)
    assert len(set(seen)) == 5
    order = [draws.at(position, lambda sample: sample.caption) for position in range(5, 10)]
    assert set(order) == set(seen) and order != seen


def test_broken_pictures_are_passed_over_until_there_are_too_many(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    table = write_cc3m(tmp_path / "data")
    pictures = sorted((tmp_path / "data" / "training").glob("*.jpg"))
    pictures[1].write_bytes(b"<html>")
    folder = copied(weights, tmp_path / "weights")
    options = ("--steps", "3", "--batch-size", "2")
    assert train(folder, tmp_path / "run", "align", f"cc3m={table}", *options) == 0
    assert "0000001_1.jpg cannot be read" in caplog.text
    for picture in pictures:
        picture.unlink()
    assert train(folder, tmp_path / "again", "align", f"cc3m={table}", *options) == 2
    assert "50 samples in a row are of no use (picture" in capsys.readouterr().err


REFUSED = {
    "no data": (["--step", "align"], "learns from captioned pictures and no --data is given"),
    "no boxes": (["--step", "grounder", "--data", "cc3m={cc3m}"], "in a row are of no use (none of them has a box)"),
    "parts": (["--step", "align", "--data", "coco={coco}", "--batch-size", "6", "--micro-batch", "4"],
              "a batch of 6 samples cannot be had in parts of 4"),
    "pairs": (["--step", "align", "--data", "coco={coco}", "--batch-size", "3"],
              "step align reads captions in pairs, and a part has 3 samples, expected an even number"),
    "fresh": (["--step", "grounder", "--fresh", "--data", "coco={coco}"], "--fresh is of StoryWorld"),
    "a bad list": (["--step", "align", "--data", "coco={cc3m}"], "COCO's list"),
    "a format": (["--step", "align", "--data", "laion=x"], "is not FORMAT=PLACE with a format of cc3m"),
    "no part": (["--step", "align", "--data", "coco={coco}", "--micro-batch", "0"], "--micro-batch is 0, expected"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_with_is_refused(
    name: str, aligned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, told = REFUSED[name]
    places = {"cc3m": write_cc3m(tmp_path / "cc3m"), "coco": write_coco(tmp_path / "coco")}
    given = [argument.format(**places) for argument in arguments]
    profile = ["--profile", str(aligned / "profile.json"), "--weights", str(aligned), "--run", str(tmp_path / "run")]
    assert main([*profile, *given]) == 2
    assert told in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("step", [step for step in STEPS if step not in (*command.STEPS, "evaluator")])
def test_steps_of_storyworlds_networks_say_what_a_published_profile_has_instead(
    step: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--profile", "paper", "--step", step]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert f"step {step} trains a network of StoryWorld's, and profile paper takes" in said
    assert "its steps are align and grounder" in said


def test_storyworlds_profiles_take_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    for given in (["--data", "coco=x"], ["--dry-run"], ["--llm-at", "disk"]):
        assert main(["--profile", "tiny", "--step", "vae", *given]) == 2
        assert "is of profiles with published parts, and tiny learns from StoryWorld" in capsys.readouterr().err


def test_the_grounder_says_that_the_alignment_comes_first(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"coco={write_coco(tmp_path / 'data')}"
    assert train(weights, tmp_path / "run", "grounder", data) == 2
    assert "alignment.safetensors are missing; train them with" in capsys.readouterr().err
    assert "--step align" not in capsys.readouterr().out


def test_gills_recipe_is_the_default() -> None:
    """Figures of its published code: what it was trained with."""
    options = ALIGN.of_length(None)
    assert (ALIGN.batch, options.total_steps, options.learning_rate, options.betas) == (200, 20_000, 1e-3, (0.9, 0.95))
    assert (options.weight_decay, options.clip_norm, options.precision.value) == (0.01, 1.0, "bf16")
    rates = [options.learning_rate_at(step) for step in (0, 999, 1_999, 2_000, 11_999, 12_000, 19_999)]
    assert rates == pytest.approx([5e-7, 5e-4, 1e-3, 1e-3, 1e-3, 1e-4, 1e-4])
    short = ALIGN.of_length(200)
    assert [short.learning_rate_at(step) for step in (19, 119, 120)] == pytest.approx([1e-3, 1e-3, 1e-4])


def test_a_dry_run_states_memory_and_time_and_leaves_nothing(
    weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = f"coco={write_coco(tmp_path / 'data')}"
    before = sorted(weights.iterdir())
    assert train(weights, tmp_path / "run", "align", data, "--dry-run", "--batch-size", "4", "--steps", "1000") == 0
    said = capsys.readouterr().out
    for told in ("6 samples; language model at: device", "language model's blocks", "a step, measured; 1000 steps:",
                 "at most in 4 steps, measured on cpu"):  # fmt: skip
        assert told in said
    assert not (tmp_path / "run").exists() and sorted(weights.iterdir()) == before


def test_at_full_size_memory_is_known_before_there_are_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """OPT-6.7B's 6.44 G parameters of blocks are 12.0 GiB in bf16; GILL's mapper and projection are 0.09 G."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    data = f"coco={write_coco(tmp_path / 'data')}"
    arguments = ["--profile", "gill", "--step", "align", "--data", data, "--weights", str(tmp_path), "--dry-run"]
    monkeypatch.setattr("mgcc_ref.train.published.command.free_bytes", lambda device: 16 * 2**30)
    assert main([*arguments, "--llm-at", "device", "--micro-batch", "50"]) == 2
    out, err = capsys.readouterr()
    assert "   18.453 GiB  on cpu" in out, "docs/training.md has it"
    assert "   12.000 GiB  language model's blocks" in out and "It does not fit: give a smaller --micro-batch" in out
    assert "facebook/opt-6.7b" in err and "give the folder" in err
    with pytest.raises(DataError):
        open_samples(DataSource(DataFormat.COCO, tmp_path / "no"))


@pytest.mark.slow
def test_two_processes_teach_what_one_teaches_in_bf16_with_blocks_from_disk(weights: Path, tmp_path: Path) -> None:
    """As on two GPUs: each process reads its part of the batch."""
    data = f"cc3m={write_cc3m(tmp_path / 'data', ending=' in a land far away')}"
    fresh = copied(weights, tmp_path / "weights-0")
    assert train(fresh, tmp_path / "run-0", "align", data, "--steps", "0", "--batch-size", "4") == 0
    taught = [load_file(fresh / "alignment.safetensors")]
    for processes in (1, 2):
        folder, run = copied(weights, tmp_path / f"weights-{processes}"), tmp_path / f"run-{processes}"
        arguments = ["--profile", str(folder / "profile.json"), "--step", "align", "--weights", str(folder)]
        arguments += ["--run", str(run), "--data", data, "--llm-at", "disk", "--micro-batch", "2", "--batch-size", "4"]
        command = [sys.executable, "-m", "mgcc_ref.train", *arguments, "--steps", "8", "--processes", str(processes)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr[-2000:]  # a process of its own: accelerate's precision is one in each
        said = done.stdout
        assert said.count(f"in {processes} processes") == processes - 1
        assert "in bf16, kept on: disk" in said and said.count("wrote ") == 1
        taught.append(load_file(folder / "alignment.safetensors"))
    start, one, two = (torch.cat([found[name].float().flatten() for name in sorted(found)]) for found in taught)
    assert (one - two).norm() < 0.05 * (one - start).norm()
    assert (one - start).abs().max() > 1e-3
