"""`mgcc bench`: what is measured, and that it is what it says."""

from __future__ import annotations

import logging
import subprocess
import sys

import numpy as np
import pytest

from mgcc_runtime.bundle.folder import sha256_of
from mgcc_runtime.errors import EngineError, OptionError
from mgcc_runtime.measure.bench import Asked, Measure, Plan, bench, parse_measures
from mgcc_runtime.measure.bench_parts import THREADS, TURNS, Summary, growth, turn_texts
from mgcc_runtime.measure.bench_table import bench_table
from mgcc_runtime.measure.cold_start import PHASES, start_cold
from tests.runtime.golden_data import gradient


@pytest.fixture(scope="module")
def found(bundle_path):
    """Everything, once."""
    return bench(bundle_path, Plan(2, 1), Asked(steps=1, words=2), threads=1)


def test_summary_interpolates_linearly():
    summary = Summary.of([4.0, 1.0, 3.0, 2.0])
    assert (summary.runs, summary.mean, summary.p50, summary.max) == (4, 2.5, 2.5, 4.0)
    many = Summary.of(list(range(1, 102)))
    assert (many.p50, many.p90, many.p99, many.max) == (51.0, 91.0, 100.0, 101.0)
    assert many.as_max == ()
    assert Summary.of(list(range(10))).p90 == pytest.approx(8.1)  # position 0.9 x 9 between the ninth and the tenth


def test_percentiles_that_the_runs_cannot_carry_are_the_slowest():
    few, some = Summary.of([1.0, 2.0, 9.0]), Summary.of([float(i) for i in range(30)])
    assert (few.p90, few.p99, few.as_max) == (9.0, 9.0, ("p90", "p99"))
    assert (some.p90, some.p99, some.as_max) == (pytest.approx(26.1), 29.0, ("p99",))


def test_machine_and_bundle(found, bundle_path):
    assert found["machine"]["threads"] == 1
    assert "clocks" in found["machine"]
    assert found["bundle"]["sha256"] == sha256_of(bundle_path / "manifest.json")
    assert found["bundle"]["precision"]["unet"] == "fp32"
    assert "not" not in found["percentiles"] and "linear" in found["percentiles"]


def test_rates_follow_from_times(found):
    tokens, p50 = found["request"]["prompt_tokens"], found["stages_ms"]["llm_prefill"]["p50"]
    assert found["tokens_per_s"]["prefill"] == pytest.approx(tokens / p50 * 1e3, rel=1e-3)
    written, p50 = found["request"]["text_tokens"], found["stages_ms"]["llm_decode"]["p50"]
    assert found["tokens_per_s"]["decode"] == pytest.approx(written / p50 * 1e3, rel=1e-3)


def test_cold_start(found):
    cold = found["cold_start"]
    assert cold["starts"] == 2
    phases = [cold["phases_ms"][phase]["mean"] for phase in PHASES]
    assert min(phases) > 0
    assert sum(phases) == pytest.approx(cold["total_ms"]["mean"], rel=1e-3)
    assert phases[PHASES.index("first_image")] > found["total_ms"]["p50"] * 0.1  # a whole request is in it
    assert cold["peak_rss_mb"] > 0


def test_dialogue(found):
    dialogue = found["dialogue"]
    assert dialogue["turns"] == len(dialogue["by_turn"]) == dialogue["asked_turns"] == TURNS
    assert all(0 < row["reading_ms"]["p50"] < row["total_ms"]["p50"] for row in dialogue["by_turn"])
    assert dialogue["turn_10_against_2"]


def test_dialogue_ends_where_the_context_is_full(made_bundle):
    """Its 160 bytes hold fewer turns than any profile's context."""
    plan = Plan(2, 1, (Measure.DIALOGUE,))
    dialogue = bench(made_bundle, plan, Asked(steps=1, words=2), threads=1)["dialogue"]
    assert 2 <= dialogue["turns"] == len(dialogue["by_turn"]) < dialogue["asked_turns"] == TURNS
    assert "turn_10_against_2" not in dialogue


def test_scale(found):
    scale = found["scale"]
    lengths = [row["positions"] for row in scale["positions"]]
    assert 64 <= lengths[0] < 128 <= lengths[1] <= 160 and len(lengths) == 2  # all that fit the bundle's context
    assert all(0 < row["reading_ms"]["p50"] < row["total_ms"]["p50"] for row in scale["positions"])
    assert [row["objects"] for row in scale["objects"]] == [1, 2, 3, 4]  # all that the bundle has places for
    assert [row["images"] for row in scale["images"]] == list(range(1, 9))  # four batches of two
    assert [row["threads"] for row in scale["threads"]] == list(THREADS)
    assert [row["requests"] for row in scale["threads"]] == [2, 4, 8]
    assert all(row["images_per_s"] > 0 for row in scale["threads"])


def test_growth_is_the_exponent_of_a_power_law():
    found = growth([(n, 3 * n**1.5) for n in (64, 128, 256, 512)])
    assert found == {"exponent": 1.5, "least": 1.5, "most": 1.5, "from": 64, "to": 512}
    bent = growth([(1, 1.0), (2, 2.0), (4, 16.0)])
    assert (bent["exponent"], bent["least"], bent["most"]) == (2.0, 1.0, 3.0)
    assert growth([(64, 1.0), (128, 2.0)]) is None


def test_every_scale_has_its_growth(found):
    scale, dialogue = found["scale"]["grows_as"], found["dialogue"]["grows_as"]
    assert set(scale) == {"text", "text_reading", "objects", "images", "images_reading", "concurrency"}
    assert set(dialogue) == {"turns", "turns_reading"}
    assert (scale["images"]["from"], scale["images"]["to"]) == (1, 8)
    assert (scale["concurrency"]["from"], scale["concurrency"]["to"]) == (1, 4)
    assert scale["text"] is None  # the bundle's context holds two lengths alone
    table = "\n".join(bench_table(found))
    assert "a request over images grows as n^" in table and "without one of the points" in table
    assert "the runtime has no batch" in table and "2 at once: " in table


def test_load_stands_beside_each_part(found):
    for part in (found, found["cold_start"], found["dialogue"], found["scale"]):
        assert part["others_cores"] is None or part["others_cores"] >= 0
    assert "cores that other programs used: cold " in "\n".join(bench_table(found))


@pytest.mark.parametrize(("cores", "warned"), [(0.4, True), (0.05, False), (None, False)])
def test_a_busy_machine_is_warned_of(bundle_path, monkeypatch, caplog, cores, warned):
    monkeypatch.setattr("mgcc_runtime.measure.machine_load.LoadMeter.others_cores", lambda self: cores)
    with caplog.at_level(logging.WARNING):
        found = bench(bundle_path, Plan(1, 0, (Measure.LATENCY,)), Asked(steps=1, words=0))
    assert found["others_cores"] == cores
    assert ("other programs used 0.40 cores during latency" in caplog.text) == warned


def test_peak_memory_is_not_the_parents():
    """A new process starts with its parent's peak in `ru_maxrss`, which is that of the whole test run."""
    large = np.ones(60_000_000)  # 480 MB, resident
    code = "from mgcc_runtime.machine import peak_rss_mb; print(peak_rss_mb())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 5 < float(done.stdout) < 200 < large.nbytes / 1e6


def test_only_what_is_asked(bundle_path):
    found = bench(bundle_path, Plan(1, 0, (Measure.LATENCY,)), Asked(steps=1, words=0))
    assert found["total_ms"]["mean"] > 0
    assert "decode" not in found["tokens_per_s"]
    assert not {"cold_start", "dialogue", "scale"} & found.keys()
    table = "\n".join(bench_table(found))
    assert "unet_step" in table and "turn" not in table


def test_table_has_every_part(found):
    table = "\n".join(bench_table(found))
    for text in ("cold first_image", "turn 2", "3 objects", "8 images", "4 at once: "):
        assert text in table
    (total,) = [line for line in table.splitlines() if line.startswith("total ")]
    assert total.split()[3:5] == ["-", "-"]  # two runs carry neither p90 nor p99
    assert "fewer runs than 10 for p90, than 100 for p99" in table


def test_turns_name_what_the_bundle_draws(pipe):
    said = list(turn_texts(pipe, 200))
    assert len(said) == 200
    assert {name for name in pipe.labels.names if any(name in text for text in said)} == set(pipe.labels.names)


def test_cold_start_takes_any_parts(bundle_path):
    parts = ["A cat.", gradient(20, 30)]
    found = start_cold(bundle_path, parts, steps=1, words=1, seed=0, threads=1)
    assert found["total"] == pytest.approx(sum(found[phase] for phase in PHASES), abs=0.01)


def test_cold_start_that_fails_says_why(tmp_path):
    with pytest.raises(EngineError, match=r"ended with 1 \(.*none"):
        start_cold(tmp_path / "none", ["x"], steps=1, words=0, seed=0, threads=1)


def test_options():
    assert parse_measures("scale, cold") == (Measure.COLD, Measure.SCALE)
    with pytest.raises(OptionError, match="--parts has speed, expected some of cold, latency"):
        parse_measures("latency,speed")
    with pytest.raises(OptionError, match="nothing is to be measured"):
        Plan(measures=parse_measures(","))
    with pytest.raises(OptionError, match="runs is 0"):
        Plan(runs=0)
    assert Plan().runs >= 30
