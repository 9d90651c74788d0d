"""`vist.py` and `visdial.py` from the official files to the scores, which are known by hand or computed here anew."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from mgcc_benchmarks.paper import visdial_cli, vist_cli
from mgcc_runtime.errors import EXIT_BAD_INPUT
from tests.benchmarks.paper.datasets import noise_picture, write_visdial, write_vist
from tests.benchmarks.paper.networks import clip_similarity, lpips_by_hand, write_alexnet, write_heads
from tests.published import publish_clip

ROOT = Path(__file__).parents[3]
Main = Callable[[list[str]], int]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vist/, visdial/ and the evaluators' weights."""
    folder = tmp_path_factory.mktemp("paper")
    write_vist(folder / "vist")
    write_visdial(folder / "visdial")
    publish_clip(folder / "clip")
    write_alexnet(folder / "alexnet.pth")
    write_heads(folder / "heads.pth")
    return folder


def vist(data: Path, out: Path, *more: str) -> list[str]:
    pictures = str(data / "vist" / "val_images")
    return ["--annotations", str(data / "vist" / "val.story-in-sequence.json"), "--pictures", pictures,
            "--out", str(out), *more]  # fmt: skip


def visdial(data: Path, out: Path, *more: str) -> list[str]:
    pictures = str(data / "visdial" / "VisualDialog_val2018")
    return ["--annotations", str(data / "visdial" / "visdial_1.0_val.json"), "--pictures", pictures,
            "--out", str(out), *more]  # fmt: skip


def judges(data: Path) -> list[str]:
    return ["--clip", str(data / "clip"), "--alexnet", str(data / "alexnet.pth"),
            "--lpips-heads", str(data / "heads.pth")]  # fmt: skip


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[[Main, list[str]], dict[str, Any]]:
    def call(main: Main, arguments: list[str]) -> dict[str, Any]:
        assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)

    return call


def squashed(path: Path) -> Image.Image:
    return Image.open(path).resize((224, 224)).convert("RGB")


def test_scores_known_by_hand(data: Path, tmp_path: Path, run) -> None:
    """Of six stories four have a pair: three end with picture 5, which is drawn perfectly; one with 16."""
    truth, drawn = data / "vist" / "val_images", tmp_path / "pictures"
    drawn.mkdir()
    squashed(truth / "5.jpg").save(drawn / "5.png")
    (other := noise_picture(99, (64, 64))).save(drawn / "16.png")
    similarity = clip_similarity(data / "clip", other, squashed(truth / "16.png"))
    distance = lpips_by_hand(
        torch.load(data / "alexnet.pth"), torch.load(data / "heads.pth"), other, squashed(truth / "16.png")
    )

    arguments = vist(data, tmp_path, "--drawn", *judges(data))
    found = run(vist_cli.main, arguments)["scores"]
    assert found["clip_similarity"]["value"] == pytest.approx((3 * 1 + similarity) / 4, abs=1e-4)
    assert (found["clip_similarity"]["pairs"], found["clip_similarity"]["items"]) == (4, 6)
    assert found["lpips"]["value"] == pytest.approx(distance, abs=1e-4)  # 5.jpg has not the name 5.png
    assert found["lpips"]["pairs"] == 1

    assert not [told for told in run(vist_cli.main, arguments)["differs_from_published"] if "steps" in told]

    found = run(vist_cli.main, [*arguments, "--switch", "lpips_pairs=item"])["scores"]
    assert found["lpips"]["value"] == pytest.approx((3 * 0 + distance) / 4, abs=1e-4) and found["lpips"]["pairs"] == 4
    found = run(vist_cli.main, [*arguments, "--switch", "unpaired=refused"])["scores"]
    assert found["clip_similarity"] == {"value": None, "ci95": [None, None], "pairs": 4, "items": 6}
    (drawn / "16.png").unlink()
    found = run(vist_cli.main, arguments)["scores"]
    assert found["clip_similarity"]["value"] == pytest.approx(1, abs=1e-4) and found["lpips"]["value"] is None


def test_visdials_names_never_match(data: Path, tmp_path: Path, run) -> None:
    """Truths are compared as they are, not squashed, and LPIPS finds no pair unless it is asked by item."""
    truth, drawn = data / "visdial" / "VisualDialog_val2018", tmp_path / "pictures"
    drawn.mkdir()
    shutil.copy(truth / "VisualDialog_val2018_000000284024.jpg", drawn / "000000284024.png")
    (other := noise_picture(98, (50, 50))).save(drawn / "000000000007.png")
    for name in ("000000185565", "000000000008"):
        other.save(drawn / f"{name}.png")  # without a truth, and of no dialogue
    similarity = clip_similarity(data / "clip", other, Image.open(truth / "VisualDialog_val2018_000000000007.jpg"))
    arguments = visdial(data, tmp_path, "--drawn", *judges(data))
    found = run(visdial_cli.main, arguments)["scores"]
    assert found["clip_similarity"]["value"] == pytest.approx((1 + similarity) / 2, abs=1e-4)
    assert (found["clip_similarity"]["pairs"], found["lpips"]["pairs"]) == (2, 0)
    assert run(visdial_cli.main, [*arguments, "--switch", "lpips_pairs=item"])["scores"]["lpips"]["pairs"] == 2


@pytest.mark.parametrize(("main", "command"), [(vist_cli.main, vist), (visdial_cli.main, visdial)])
def test_a_bundle_scores_as_the_reference(
    main: Main, command: Callable[..., list[str]], data: Path, tiny_bundle: Path, tmp_path: Path, run
) -> None:
    """With published weights: tests/export/test_published.py."""
    steps = ["--steps", "2", *judges(data), "--switch", "lpips_pairs=item"]
    ours = run(main, command(data, tmp_path / "bundle", "--bundle", str(tiny_bundle), *steps))
    theirs = run(main, command(data, tmp_path / "reference", "--reference", "--profile", "tiny", *steps))
    for name in ("clip_similarity", "lpips"):
        assert ours["scores"][name]["value"] == pytest.approx(theirs["scores"][name]["value"], abs=1e-3), name
        assert ours["scores"][name]["pairs"] == theirs["scores"][name]["pairs"] > 0
        assert ours["scores"][name]["value"] not in (0, 1)
    assert ours["left_out"] == theirs["left_out"] == {}
    pictures = {path.name for path in (tmp_path / "bundle" / "pictures").iterdir()}
    assert pictures == {path.name for path in (tmp_path / "reference" / "pictures").iterdir()}
    assert len({Image.open(tmp_path / "bundle" / "pictures" / name).tobytes() for name in pictures}) == len(pictures)


def test_shards_and_a_shorter_run_end_in_the_same_scores(
    data: Path, paper_tiny_bundle: Path, tmp_path: Path, run, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["--bundle", str(paper_tiny_bundle), "--steps", "1", "--boxes", "none", "--clip", str(data / "clip")]
    whole = run(vist_cli.main, vist(data, tmp_path / "whole", *shared))
    run(vist_cli.main, vist(data, tmp_path / "short", *shared, "--items", "2"))
    assert [p.name for p in (tmp_path / "short" / "pictures").iterdir()] == ["5.png"]
    assert run(vist_cli.main, vist(data, tmp_path / "short", *shared))["scores"] == whole["scores"]
    for number in (1, 2):
        assert vist_cli.main(vist(data, tmp_path / "shards", *shared, "--shard", f"{number}/2")) == 0
        assert f"shard {number}/2 is done" in capsys.readouterr().out
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "shards" / "pictures").iterdir()}
    assert run(vist_cli.main, vist(data, tmp_path / "shards", *shared))["scores"] == whole["scores"]
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "shards" / "pictures").iterdir()} == times
    assert json.loads((tmp_path / "shards" / "result.json").read_text())["scores"] == whole["scores"]
    assert not (tmp_path / "shards" / "scores-1-of-1.jsonl").exists()  # nothing was scored again


def test_the_table_stands_beside_the_published_figures(
    data: Path, paper_tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ["--bundle", str(paper_tiny_bundle), "--steps", "1", "--clip", str(data / "clip")]
    assert vist_cli.main(vist(data, tmp_path, *shared, "--setting", "5", "--switch", "noise=item")) == 0
    said = capsys.readouterr().out
    assert "| this run, setting 5 | " in said and "clip_similarity: 5 of 6 pairs |" in said
    assert "| MGCC | 0.652 | arXiv 2405.18304, abstract |" in said and "| GILL | 0.641 |" in said
    for obstacle in ("switches other than protocol gill: noise=item", "the CLIP is no ViT-L/14", "steps 1, where GILL"):
        assert obstacle in said
    own = ["--drawn", "--clip", str(data / "clip"), "--setting", "5", "--switch", "noise=item"]
    assert vist_cli.main(vist(data, tmp_path, *own)) == 0 and "steps 1, where GILL has 50" in capsys.readouterr().out
    assert vist_cli.main(vist(data, tmp_path, *shared, "--setting", "1")) == EXIT_BAD_INPUT
    assert "holds pictures of a run with another setting and protocol" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ([], "give one of --bundle DIR, --reference and --drawn"),
        (["--drawn"], "--drawn draws nothing, so there is nothing to do"),
        (["--drawn", "--clip", "none"], "none lacks config.json"),
        (["--drawn", "--alexnet", "none"], "weights none cannot be read"),
        (["--reference", "--shard", "5/4"], "expected I/N with I from 1 to N"),
        (["--reference", "--switch", "fit"], "--switch fit is '', expected squash or keep"),
        (["--bundle", "none"], "none"),
        (["--drawn", "--lpips-heads", "x", "--clip", "y"], "--lpips-heads go with --alexnet"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    more: list[str], said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert vist_cli.main(vist(data, tmp_path, *more)) == EXIT_BAD_INPUT
    error = capsys.readouterr().err
    assert said in error and error.startswith("vist.py: ") and error.count("\n") == 1


@pytest.mark.slow
def test_killed_and_begun_again(data: Path, paper_tiny_bundle: Path, tmp_path: Path) -> None:
    """By SIGKILL, after its first picture."""
    command = [sys.executable, str(ROOT / "benchmarks" / "vist.py"), "--bundle", str(paper_tiny_bundle), "--json",
               "--clip", str(data / "clip")]  # fmt: skip
    whole = subprocess.run([*command, *vist(data, tmp_path / "whole")], capture_output=True, check=True, text=True)
    killed = subprocess.Popen([*command, *vist(data, tmp_path / "killed")], stdout=subprocess.DEVNULL)
    until_s = time.monotonic() + 120
    while not list((tmp_path / "killed").glob("pictures/*.png")) and time.monotonic() < until_s:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    held = len(list((tmp_path / "killed").glob("pictures/*.png")))
    again = subprocess.run([*command, *vist(data, tmp_path / "killed")], capture_output=True, check=True, text=True)
    assert 1 <= held < 3, "it was over before it could be killed"
    assert json.loads(again.stdout)["scores"] == json.loads(whole.stdout)["scores"]
