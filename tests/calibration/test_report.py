"""Which StoryBench results go into a report, and which are refused with the reason."""

from __future__ import annotations

import json

import pytest

from mgcc_calibration.report import add_storybench, report_paths
from mgcc_runtime.errors import InputError

RESULT = {
    "suite": "stories",
    "setting": "5",
    "items": 20,
    "scores": {"whole_scene": {"value": 0.75, "ci95": [0.7, 0.8]}, "clip": {"value": None, "ci95": [None, None]}},
}


@pytest.fixture
def bundle(tmp_path):
    """A bundle's path with a report of no stages beside it."""
    data = {"source": "StoryWorld", "requests": 2, "steps": 4, "words": 8, "bytes": 10, "elapsed_s": 1.0}
    values = {
        "bundle": "low", "source": "full", "profile": "tiny", "asked": "auto", "data": data, "machine": {},
        "bytes_before": 20, "bytes_after": 10, "elapsed_s": 2.0, "stages": {}, "image_psnr_db": None,
        "perplexity": {}, "storybench": {},
    }  # fmt: skip
    path = tmp_path / "low"
    report_paths(path)[0].write_text(json.dumps(values), encoding="utf-8")
    return path


def added(bundle, before, after):
    """The report's text after entering two results."""
    paths = [bundle.with_name(f"{name}.json") for name in ("before", "after")]
    for path, result in zip(paths, (before, after), strict=True):
        path.write_text(json.dumps(result), encoding="utf-8")
    return add_storybench(bundle, *paths)[1].read_text(encoding="utf-8")


def test_two_results_of_the_same_measurement_are_entered(bundle):
    """Whatever else the files hold."""
    later = {**RESULT, "scores": {"whole_scene": {"value": 0.5, "ci95": None}}, "machine": {"cpu": "x"}}
    text = added(bundle, RESULT, later)
    assert "| whole_scene | 0.750 (0.700 to 0.800) | 0.500 |" in text
    assert "| clip | not measured | not measured |" in text


@pytest.mark.parametrize(("others", "told"), [(1.8, True), (0.05, False), (None, False)])
def test_times_of_a_busy_machine_are_marked(bundle, others, told):
    """What was chosen by them may not be what is fastest: of two cores others had 1.8, and 8 bits looked like fp32."""
    chosen = {
        "engine": "onnxruntime", "precision": "fp32", "signal_to_noise_db": 99.0, "error": 0.0, "total_ms": 4.0,
        "same_pictures": None, "form": "exported", "bytes": 10, "refused": "",
    }  # fmt: skip
    path = report_paths(bundle)[0]
    values = json.loads(path.read_text(encoding="utf-8"))
    values["stages"] = {
        "unet": {
            "choice": {"chosen": chosen, "measurements": [chosen]}, "method": "", "quantised": 0, "kept": {},
            "bytes_before": 10, "bytes_after": 10, "others_cores": others,
        }
    }  # fmt: skip
    path.write_text(json.dumps(values), encoding="utf-8")
    text = added(bundle, RESULT, RESULT)
    assert ("Other programs used 1.80 cores during the measuring of `unet`" in text) is told


@pytest.mark.parametrize(
    ("result", "came"),
    [
        ([], "is a list"),
        ({}, "has no suite"),
        ({**RESULT, "suite": ""}, "has '' as its suite"),
        ({**RESULT, "setting": 5}, "has 5 as its setting"),
        ({**RESULT, "items": 0}, "has 0 as its items"),
        ({**RESULT, "items": True}, "has True as its items"),
        ({**RESULT, "items": "20"}, "has '20' as its items"),
        ({name: value for name, value in RESULT.items() if name != "scores"} | {"ceiling": {}}, "has no scores"),
        ({**RESULT, "scores": {}}, "has {} as its scores"),
        ({**RESULT, "scores": {"clip": 0.5}}, "has 0.5 as its score clip"),
        ({**RESULT, "scores": {"clip": {"value": "high"}}}, "has {'value': 'high'} as its score clip"),
        ({**RESULT, "scores": {"clip": {"value": float("nan")}}}, "has {'value': nan} as its score clip"),
        ({**RESULT, "scores": {"clip": {"value": 10**400}}}, "as its score clip"),
        ({**RESULT, "scores": {"clip": {}}}, "has {} as its score clip"),
        ({**RESULT, "scores": {"clip": {"value": 0.5, "ci95": [0.4]}}}, "as its score clip"),
        ({**RESULT, "scores": {"clip": {"value": 0.5, "ci95": 7}}}, "as its score clip"),
    ],
)
@pytest.mark.parametrize("which", ["before", "after"])
def test_what_is_no_result_is_refused_and_leaves_the_report(bundle, result, came, which):
    untouched = report_paths(bundle)[0].read_bytes()
    pair = {"before": RESULT, "after": RESULT, which: result}
    with pytest.raises(InputError) as refused:
        added(bundle, **pair)
    text = str(refused.value)
    assert f"{which}.json" in text and came in text and "expected" in text and "benchmarks/quality.py" in text
    assert report_paths(bundle)[0].read_bytes() == untouched and not report_paths(bundle)[1].exists()


def test_a_value_is_cut_short_where_it_would_fill_the_screen(bundle):
    with pytest.raises(InputError) as refused:
        added(bundle, {**RESULT, "suite": list(range(10_000))}, RESULT)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize(("name", "value"), [("suite", "dialogues"), ("setting", "1"), ("items", 500)])
def test_results_of_two_measurements_are_not_compared(bundle, name, value):
    with pytest.raises(InputError) as refused:
        added(bundle, RESULT, {**RESULT, name: value})
    text = str(refused.value)
    assert f"{name} {RESULT[name]}" in text and f"{name} {value}" in text and "expected" in text
