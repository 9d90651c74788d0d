"""What is captured, that it comes out the same again, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from mgcc_calibration.data.capture import CaptureOptions, capture
from mgcc_calibration.data.requests import folder_requests, storyworld_requests
from mgcc_calibration.data.samples import MANIFEST, CalibrationData, check_samples
from mgcc_calibration.errors import DataError
from mgcc_runtime.contract import WITHOUT_WEIGHTS, stage, stages
from mgcc_runtime.errors import InputError


def test_every_stage_with_weights_is_captured_and_accepted(bundle, data):
    wanted = [spec for spec in stages(bundle.manifest.dimensions) if spec.name not in WITHOUT_WEIGHTS]
    assert {*data.manifest.stages} == {spec.name for spec in wanted}
    for spec in wanted:
        assert data.check(spec) == len(data.manifest.stages[spec.name]) > 0


def test_the_unet_is_captured_at_every_step(bundle, data):
    seen = [float(feeds["timestep"][0]) for feeds in data.samples("unet")]
    steps = data.manifest.steps
    assert len(seen) == 2 * steps and len(set(seen[:steps])) == steps


def test_the_language_model_is_captured_at_prefill_image_tokens_and_decode(bundle, data):
    lengths = {feeds["inputs_embeds"].shape[1] for feeds in data.samples("llm")}
    assert 1 in lengths and bundle.manifest.dimensions.image_tokens in lengths and max(lengths) > 8


def test_the_same_seed_gives_the_same_bytes(bundle, source, data, tmp_path):
    again = capture(bundle, source, CaptureOptions(seed=3, words=4), tmp_path / "again")
    assert again.manifest.stages == data.manifest.stages
    other = capture(
        bundle, storyworld_requests(2, seed=4), CaptureOptions(seed=4, words=4, stages=("unet",)), tmp_path / "other"
    )
    assert set(other.manifest.stages) == {"unet"}
    assert other.manifest.stages["unet"] != data.manifest.stages["unet"]


@pytest.mark.parametrize("stage", ["nonsense", "solver"])
def test_a_stage_that_is_not_there_or_has_no_weights_is_refused(bundle, source, tmp_path, stage):
    options = CaptureOptions(stages=("unet", stage))
    with pytest.raises(DataError, match=rf"has no stage {stage} to calibrate; choose from vision_encoder, llm,"):
        capture(bundle, source, options, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_the_users_own(bundle, tmp_path):
    Image.new("RGB", (40, 30), (200, 30, 30)).save(tmp_path / "ball.png")
    story = {"parts": [{"text": "A ball."}, {"image": "ball.png"}, {"text": "Another."}]}
    (tmp_path / "b.json").write_text(json.dumps(story), encoding="utf-8")
    (tmp_path / "a.txt").write_text("A cat on the beach.\n", encoding="utf-8")
    found = folder_requests(tmp_path, seed=0)
    assert [len(r.parts) for r in found.requests] == [1, 3]
    data = capture(bundle, found, CaptureOptions(words=0, stages=("vision_encoder", "unet")), tmp_path / "out")
    counts = {stage: len(entries) for stage, entries in data.manifest.stages.items()}
    assert counts == {"vision_encoder": 1, "unet": 2 * data.manifest.steps}


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"holds no story"):
        folder_requests(tmp_path, seed=0)
    (tmp_path / "a.txt").write_text("  \n", encoding="utf-8")
    with pytest.raises(DataError, match="is empty"):
        folder_requests(tmp_path, seed=0)


def test_a_folder_in_use_is_left_alone(bundle, source, data):
    with pytest.raises(DataError, match="not empty"):
        capture(bundle, source, CaptureOptions(), data.root)
    assert (data.root / MANIFEST).is_file()


def test_a_failed_capture_leaves_nothing(bundle, source, tmp_path):
    with pytest.raises(InputError):
        capture(bundle, source, CaptureOptions(steps=10_000), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_altered_sample_is_refused(bundle, data, tmp_path):
    own = CalibrationData.open(shutil.copytree(data.root, tmp_path / "own"))
    path = own.root / own.manifest.stages["unet"][0].file
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(DataError, match="missing or altered"):
        own.check(stage(bundle.manifest.dimensions, "unet"))


def test_a_folder_without_data_is_refused(tmp_path):
    with pytest.raises(DataError, match="no calibration"):
        CalibrationData.open(tmp_path)
    (tmp_path / MANIFEST).write_text('{"schema": 1, "stages": {}}', encoding="utf-8")
    with pytest.raises(DataError, match="expected form"):
        CalibrationData.open(tmp_path)


def spoilt(data: CalibrationData, change: str) -> Iterator[dict[str, np.ndarray]]:
    """The unet's samples with one fault."""
    for number, feeds in enumerate(data.samples("unet")):
        feeds = dict(feeds)
        if change == "nan" and number == 1:
            feeds["conditioning"] = feeds["conditioning"].copy()
            feeds["conditioning"].flat[0] = np.nan
        if change == "constant":
            feeds["latents"] = np.full_like(feeds["latents"], 0.5)
        if change == "absent":
            del feeds["boxes"]
        yield feeds


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("nan", "holds 1 values of NaN or infinity in conditioning"),
        ("constant", "latents of stage unet is 0.5 throughout"),
        ("absent", "has no boxes"),
    ],
)
def test_faulty_data_is_refused_with_the_reason(bundle, data, change, reason):
    with pytest.raises(DataError, match=reason):
        check_samples(stage(bundle.manifest.dimensions, "unet"), spoilt(data, change))


@pytest.mark.parametrize("name", ["latents", "conditioning"])
def test_an_input_that_is_the_same_in_every_sample_is_refused_by_name(bundle, data, name):
    """Though it varies within a sample, and all other inputs differ."""
    once = next(data.samples("unet"))[name]
    assert once.min() < once.max()
    spec, stuck = stage(bundle.manifest.dimensions, "unet"), ({**feeds, name: once} for feeds in data.samples("unet"))
    with pytest.raises(DataError, match=f"{name} of stage unet is the same in all .* samples"):
        check_samples(spec, stuck, requests=2)


def test_what_a_request_sets_may_stay_for_all_its_steps(bundle, source, tmp_path):
    """One request has one conditioning, whatever the number of its samples; and no two settings of guidance."""
    one = replace(source, requests=source.requests[:1])
    data = capture(bundle, one, CaptureOptions(words=0, stages=("unet",)), tmp_path / "data")
    feeds = list(data.samples("unet"))
    assert all(np.array_equal(f[n], feeds[0][n]) for f in feeds for n in ("conditioning", "guidance"))
    assert data.check(stage(bundle.manifest.dimensions, "unet")) == len(feeds) > 1


def test_two_equal_stories_are_refused_where_the_stage_reads_them(bundle, source, tmp_path):
    """Their noise differs, so the UNet's samples do; its conditioning does not."""
    again = replace(source, requests=(source.requests[0], replace(source.requests[0], seed=99)))
    data = capture(bundle, again, CaptureOptions(words=0, stages=("unet",)), tmp_path / "data")
    with pytest.raises(DataError, match="conditioning of stage unet is the same in all"):
        data.check(stage(bundle.manifest.dimensions, "unet"))


def test_repeated_and_missing_data_are_refused(bundle, data):
    spec = stage(bundle.manifest.dimensions, "vae_decoder")
    once = next(data.samples("vae_decoder"))
    with pytest.raises(DataError, match="all 3 samples of stage vae_decoder are equal"):
        check_samples(spec, iter([once] * 3))
    with pytest.raises(DataError, match="no calibration data of stage vae_decoder"):
        check_samples(spec, iter([]))
