"""The calibration's readers against every oddity of bytes."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from mgcc_calibration.bundle.chosen_stages import chosen_stages
from mgcc_calibration.data.requests import folder_requests
from mgcc_calibration.data.samples import MANIFEST, CalibrationData, DataManifest, SampleEntry
from mgcc_calibration.errors import DataError
from mgcc_calibration.report import _storybench_result, add_storybench, report_paths
from mgcc_runtime.bundle.folder import sha256_of
from mgcc_runtime.errors import InputError
from tests.oddities import BY_NAME, check_reader, check_sentence, spoiled_arrays

RESULT = {
    "suite": "stories", "setting": "5+4", "items": 2, "scores": {"whole_scene": {"value": 1.0, "ci95": [0.9, 1.0]}},
}  # fmt: skip

#: What records of a measurement may hold; a score that is no number is refused in its own words.
OUR_OWN = ("NaN", "Infinity", "minus Infinity", "1e999")


@BY_NAME
def test_calibration_manifest(tmp_path, oddity):
    entry = SampleEntry("unet-0.npz", 1, "0" * 64, 0, 0)
    manifest = DataManifest("tiny", {"unet": "0" * 64}, "a folder", 0, 1, 2, 3, 0.5, {"unet": (entry,)})
    check_reader(oddity, tmp_path / MANIFEST, manifest.to_json(), lambda: CalibrationData.open(tmp_path))


@BY_NAME
def test_stories_of_the_users_own(tmp_path, oddity):
    story = {"parts": [{"text": "Ein Fuchs saß."}]}
    check_reader(oddity, tmp_path / "a.json", story, lambda: folder_requests(tmp_path, 0).requests)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_of_the_users_own(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("Ein Fuchs saß.\r\n", encoding=encoding, newline="")
    assert folder_requests(tmp_path, 0).requests[0].parts == ("Ein Fuchs saß.",)
    (tmp_path / "a.txt").write_bytes(b"Ein Fuchs sa\xdf.")
    with pytest.raises(InputError, match=r"story .*a\.txt is not UTF-8 text"):
        folder_requests(tmp_path, 0)


@BY_NAME
def test_scores_for_a_report(tmp_path, oddity):
    path = tmp_path / "after.json"
    if oddity.name in OUR_OWN:
        path.write_bytes(oddity.spoil(RESULT))
        assert _storybench_result(path)["scores"] == RESULT["scores"]
    else:
        check_reader(oddity, path, RESULT, lambda: _storybench_result(path))


@BY_NAME
def test_a_damaged_report(tmp_path, oddity):
    """That scores are to be entered into; it stays as it is."""
    as_json, as_text = report_paths(tmp_path / "b")
    for name in ("before", "after"):
        (tmp_path / f"{name}.json").write_text(json.dumps(RESULT))
    data = oddity.spoil({"bundle": "b"})
    as_json.write_bytes(data)
    with pytest.raises(InputError, match="calibration report") as caught:
        add_storybench(tmp_path / "b", tmp_path / "before.json", tmp_path / "after.json")
    check_sentence(caught.value)
    assert as_json.read_bytes() == data
    assert not as_text.exists()


@BY_NAME
def test_a_damaged_entry_of_the_store_is_no_entry(tmp_path, oddity):
    store = chosen_stages(tmp_path)
    folder = tmp_path / f"unet-{'0' * 20}"
    folder.mkdir()
    (folder / "entry.json").write_bytes(oddity.spoil({"graph": "a", "files": {}}))
    assert store.get("unet", "0" * 64) is None


def test_samples(tmp_path):
    for name, data in spoiled_arrays(tmp_path).items():
        (tmp_path / "s.npz").write_bytes(data)
        entry = SampleEntry("s.npz", len(data), sha256_of(tmp_path / "s.npz"), 0, 0)
        manifest = DataManifest("tiny", {}, "a folder", 0, 1, 2, 3, 0.5, {"unet": (entry,)})
        (tmp_path / MANIFEST).write_text(json.dumps({"schema": 1, **asdict(manifest)}))
        with pytest.raises(DataError, match=r"calibration sample .*s\.npz is not a plain \.npz file") as caught:
            list(CalibrationData.open(tmp_path).samples("unet"))
        check_sentence(caught.value)
        assert name
    np.savez(tmp_path / "s.npz", a=np.zeros(2))
    entry = SampleEntry("s.npz", 1, sha256_of(tmp_path / "s.npz"), 0, 0)
    manifest = DataManifest("tiny", {}, "a folder", 0, 1, 2, 3, 0.5, {"unet": (entry,)})
    (tmp_path / MANIFEST).write_text(json.dumps({"schema": 1, **asdict(manifest)}))
    assert [list(feeds) for feeds in CalibrationData.open(tmp_path).samples("unet")] == [["a"]]
