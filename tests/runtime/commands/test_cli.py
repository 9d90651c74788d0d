"""The command line as a user meets it: exit codes, one sentence on standard error, JSON on standard output."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mgcc_runtime import Pipeline
from mgcc_runtime.cli import main
from tests.runtime.golden_data import gradient
from tests.runtime.tiny_bundle import reseal


@pytest.fixture
def run(capsys):
    """Run a command in this process: (exit code, standard output, standard error)."""

    def run_it(*arguments):
        try:
            code = main([str(a) for a in arguments])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_it


@pytest.fixture
def picture(tmp_path):
    gradient(9, 7).save(tmp_path / "p.png")
    return tmp_path / "p.png"


def test_generate_json(run, paper_tiny_bundle, picture, tmp_path):
    out = tmp_path / "new" / "out.png"
    code, text, errors = run(
        "generate", "--bundle", paper_tiny_bundle, "--text", "A cat.", "--image", picture, "--text", "It sits.",
        "--seed", 3, "--steps", 2, "--guidance", 1.5, "--words", 2, "--out", out, "--json",
    )  # fmt: skip
    assert (code, errors) == (0, "")
    found = json.loads(text)
    assert set(found) == {"text", "images", "seed", "timings_ms", "peak_rss_mb"}
    assert found["seed"] == 3
    assert found["peak_rss_mb"] > 10
    (image,) = found["images"]
    assert (image["path"], image["width"], image["height"]) == (str(out), 64, 64)
    assert set(image["boxes"][0]) == {"id", "label", "xyxy", "score"}
    with Pipeline.load(paper_tiny_bundle) as pipe:
        expected = pipe.generate(["A cat.", picture, "It sits."], seed=3, steps=2, guidance=1.5, words=2)
    assert found["text"] == expected.text
    with Image.open(out) as written:
        np.testing.assert_array_equal(np.asarray(written), np.asarray(expected.image))
    assert [p.name for p in out.parent.iterdir()] == ["out.png"]


def test_order_of_texts_and_images_counts(run, bundle_path, picture, tmp_path):
    for name, parts in {"a": ("--text", "x", "--image", picture), "b": ("--image", picture, "--text", "x")}.items():
        assert run("generate", "--bundle", bundle_path, *parts, "--out", tmp_path / f"{name}.png")[0] == 0
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_story_file(run, bundle_path, picture, tmp_path):
    story = tmp_path / "story.json"
    story.write_text(json.dumps({"parts": [{"text": "x"}, {"image": picture.name}]}))
    assert run("generate", "--bundle", bundle_path, "--story", story, "--out", tmp_path / "a.png")[0] == 0
    run("generate", "--bundle", bundle_path, "--text", "x", "--image", picture, "--out", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_boxes_file(run, bundle_path, tmp_path):
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps([{"label": "cat", "xyxy": [1, 2, 20, 30]}]))
    code, text, _ = run(
        "generate", "--bundle", bundle_path, "--text", "x", "--boxes", boxes, "--out", tmp_path / "a.png", "--json"
    )
    assert code == 0
    assert json.loads(text)["images"][0]["boxes"] == [{"id": "1", "label": "cat", "xyxy": [1, 2, 20, 30], "score": 1.0}]


def test_plain_output(run, bundle_path, tmp_path):
    code, text, _ = run("generate", "--bundle", bundle_path, "--text", "x", "--out", tmp_path / "a.png")
    assert code == 0
    assert f"{tmp_path / 'a.png'} (32x32" in text
    assert "score" in text


GENERATE = ("generate", "--out", "{tmp}/o.png")
BAD_INPUT = {
    "no bundle": ((*GENERATE, "--bundle", "{tmp}/none", "--text", "x"), "is not a folder"),
    "no parts": ((*GENERATE, "--bundle", "{bundle}"), "the prompt is empty, expected --text, --image or --story"),
    "blank text": ((*GENERATE, "--bundle", "{bundle}", "--text", " "), "part 1 of the prompt is an empty text"),
    "long text": ((*GENERATE, "--bundle", "{bundle}", "--text", "x " * 300), "more than the context of 256"),
    "no image": ((*GENERATE, "--bundle", "{bundle}", "--image", "{tmp}/q.png"), "q.png does not exist"),
    "no story": ((*GENERATE, "--bundle", "{bundle}", "--story", "{tmp}/q.json"), "story .*q.json does not exist"),
    "two sources": ((*GENERATE, "--bundle", "{bundle}", "--story", "s.json", "--text", "x"), "both --story and"),
    "seed": (
        (*GENERATE, "--bundle", "{bundle}", "--text", "x", "--seed", "abc"),
        "seed is .abc., expected a whole number",
    ),
    "steps": ((*GENERATE, "--bundle", "{bundle}", "--text", "x", "--steps", "51"), "steps is 51, expected 1 to 50"),
    "boxes": ((*GENERATE, "--bundle", "{bundle}", "--text", "x", "--boxes", "all"), "box list all does not exist"),
    "threads": (
        (*GENERATE, "--bundle", "{bundle}", "--text", "x", "--threads", "-1"),
        "threads is -1, expected a whole number from 0 to",
    ),
    "suffix": (("generate", "--out", "x.jpg", "--bundle", "{bundle}", "--text", "x"), r"does not end in \.png"),
    "option": (("generate", "--frobnicate"), "mgcc.*--help"),
    "command": (("paint",), "invalid choice: 'paint'"),
    "nothing": ((), "the following arguments are required: COMMAND"),
    "verify runs": (("bench", "--bundle", "{bundle}", "--runs", "0"), "runs is 0"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_exits_2_with_one_sentence(run, bundle_path, tmp_path, case):
    import re

    arguments, message = BAD_INPUT[case]
    code, text, errors = run(*(a.format(tmp=tmp_path, bundle=bundle_path) for a in arguments))
    assert (code, text) == (2, "")
    assert re.search(message, errors)
    assert errors.count("\n") == 1
    assert not (tmp_path / "o.png").exists()


@pytest.mark.parametrize(
    "story", ["[]", '{"parts": 3}', '{"parts": [{"sound": "x"}]}', '{"parts": [{"text": 3}]}', "{", '{"parts": ["x"]}']
)
def test_stories_that_are_refused(run, bundle_path, tmp_path, story):
    (tmp_path / "s.json").write_text(story)
    code, _, errors = run("generate", "--bundle", bundle_path, "--story", tmp_path / "s.json", "--out", "x.png")
    assert code == 2
    assert "s.json" in errors
    assert errors.count("\n") == 1


def test_output_folder_that_cannot_be_made(run, bundle_path, tmp_path):
    (tmp_path / "file").write_text("")
    code, _, errors = run("generate", "--bundle", bundle_path, "--text", "x", "--out", tmp_path / "file" / "o.png")
    assert code == 1
    assert "cannot be made" in errors


def test_info(run, bundle_path):
    code, text, _ = run("info", "--bundle", bundle_path)
    assert code == 0
    assert "profile tiny (random weights) for cpu" in text
    assert "unet" in text
    found = json.loads(run("info", "--bundle", bundle_path, "--json")[1])
    assert found["dimensions"]["image_px"] == 32


def test_verify(run, bundle_path, own_bundle):
    code, text, _ = run("verify", "--bundle", bundle_path)
    assert code == 0
    assert text.splitlines()[-1] == "9 passed, 0 failed"
    out = own_bundle.parent / "sent" / "verify.json"
    assert run("verify", "--bundle", bundle_path, "--out", out)[0] == 0
    assert json.loads(out.read_text())["machine"]["cores"] >= 1
    assert run("verify", "--bundle", bundle_path, "--out", out.with_suffix(".txt"))[0] == 2
    found = json.loads(run("verify", "--bundle", bundle_path, "--json")[1])
    assert found["passed"]
    assert len(found["checks"]) == 9
    (own_bundle / "golden" / "unet.npz").unlink()
    code, text, _ = run("verify", "--bundle", reseal(own_bundle))
    assert code == 1
    assert "FAIL  stage unet" in text


@pytest.mark.slow
def test_bench(run, bundle_path):
    code, text, _ = run("bench", "--bundle", bundle_path, "--runs", 3, "--warm-up", 1, "--words", 2, "--json")
    assert code == 0
    found = json.loads(text)
    assert found["runs"] == 3
    assert found["machine"]["cores"] >= 1
    row = found["stages_ms"]["unet"]
    assert 0 < row["p50"] <= row["p90"] <= row["p99"] < found["total_ms"]["p99"]
    assert found["per_call_ms"]["unet_step"]["mean"] * 4 == pytest.approx(row["mean"], rel=0.01)
    code, text, _ = run("bench", "--bundle", bundle_path, "--runs", 1, "--warm-up", 0, "--steps", 1)
    assert code == 0
    assert "total" in text


def test_as_a_module_without_traceback(tmp_path):
    command = [sys.executable, "-m", "mgcc_runtime", "info", "--bundle", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("mgcc: bundle")
    assert "Traceback" not in done.stderr
    help_text = subprocess.run([*command[:3], "--help"], capture_output=True, text=True, check=True).stdout
    assert all(name in help_text for name in ("generate", "info", "verify", "bench"))
