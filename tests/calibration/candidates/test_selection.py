"""Candidates for a stage on the CPU: made, run by the runtime's engines, measured, and chosen within the budget."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mgcc_calibration.analysis.sensitivity import worst_error
from mgcc_calibration.candidates.candidate import COMPETING, CandidateOptions, Engine
from mgcc_calibration.candidates.llm_graphs import decoding, reading
from mgcc_calibration.candidates.selection import (
    Budget,
    Measurement,
    Measuring,
    _times,
    choose,
    choose_graphs,
    measure,
    workload,
)
from mgcc_calibration.candidates.stage_graphs import FORMS, StageJob, make_candidates, write_dynamic
from mgcc_calibration.errors import BudgetError
from mgcc_calibration.quantise.grid import Grid
from mgcc_calibration.quantise.matmul_nbits import Correction, WeightOptions
from mgcc_ref.precision import Precision
from mgcc_runtime.contract import stage
from mgcc_runtime.engines.openvino.bf16 import computes_in_bf16
from mgcc_runtime.measure.similarity import relative_l2
from tests.calibration.small_stage import SPEC, make_graph, samples

EVERY = list(COMPETING)
#: The engines that this machine's CPU has arithmetic for.
ENGINES = [e for e in Engine if e is not Engine.OPENVINO_BF16 or computes_in_bf16()]


@pytest.fixture(scope="module")
def candidates(tmp_path_factory):
    """Of the convolutional stage, in every form, at a budget that W8A8 reaches with all its layers."""
    folder = tmp_path_factory.mktemp("candidates")
    source = make_graph().save(folder / "fp32" / "unet.onnx")
    weights = WeightOptions(Grid(4, 16), Correction.AWQ_GPTQ)
    return make_candidates(
        StageJob(SPEC, source, samples(), folder), EVERY, CandidateOptions(weights=weights, least_db=20.0)
    )


@pytest.fixture(scope="module")
def measurements(candidates):
    return measure(SPEC, candidates, samples(), Measuring(20.0, 2, 1))


def test_every_form_is_made(candidates):
    assert [(c.engine, c.precision) for c in candidates] == list(FORMS)
    assert all(c.path is not None and c.path.is_file() for c in candidates if c.engine in ENGINES)
    assert all("no bf16" in c.note for c in candidates if c.engine not in ENGINES)


def test_every_form_runs_in_its_engine_and_is_compared(measurements):
    assert [(m.engine, m.precision) for m in measurements] == list(FORMS)
    for m in measurements:
        if m.engine not in ENGINES:
            assert "no bf16" in m.refused
            continue
        assert m.total_ms is not None and m.total_ms > 0 and set(m.calls_ms) == {"call"}
    by_form = {(m.engine, m.precision): m for m in measurements}
    assert by_form[Engine.OPENVINO, Precision.FP32].error < 1e-5
    for engine in ENGINES:
        assert 20 < by_form[engine, Precision.INT8].signal_to_noise_db < 60
    sizes = {m.precision: m.bytes for m in measurements}
    if Engine.OPENVINO_BF16 in ENGINES:
        rounded = by_form[Engine.OPENVINO_BF16, Precision.BF16]
        assert 1e-4 < rounded.error < 0.02  # bf16 keeps 8 bits: it was really computed in them
    assert sizes[Precision.INT4_WEIGHTS] < sizes[Precision.FP32]


def test_the_fastest_within_the_budget_is_chosen(measurements):
    def with_time(m: Measurement, total_ms: float, decibels: float, refused: str = "") -> Measurement:
        return replace(m, total_ms=total_ms, signal_to_noise_db=decibels, refused=refused)

    slow, fast, wrong = (
        with_time(measurements[0], 9.0, 99.0),
        with_time(measurements[1], 4.0, 30.0),
        with_time(measurements[2], 1.0, 3.0, "too far off"),
    )
    found = choose("unet", [slow, fast, wrong])
    assert found.chosen is fast and found.measurements == (slow, fast, wrong)
    with pytest.raises(BudgetError, match="too far off"):
        choose("unet", [wrong])


def test_the_budget_refuses_with_the_reason(candidates):
    found = measure(SPEC, candidates, samples(), Measuring(70.0, 1, 1))
    refused = {(m.engine, m.precision): m.refused for m in found}
    assert not refused[Engine.ONNXRUNTIME, Precision.FP32]
    assert "at least 70 is asked for" in refused[Engine.OPENVINO, Precision.INT8]


def test_what_boxes_are_read_from_is_held_to_more():
    budget = Budget()
    assert budget.floor_db("vision_encoder", judged=True) == budget.floor_db("vision_encoder", judged=False) == 38
    assert (budget.floor_db("unet", judged=True), budget.floor_db("unet", judged=False)) == (20, 25)
    assert Budget(least_db=15).floor_db("vision_encoder", judged=True) == 15


def test_what_changes_the_pictures_is_refused_and_the_next_is_judged(measurements):
    def entry(i: int, precision: Precision, total_ms: float) -> Measurement:
        return replace(measurements[i], precision=precision, total_ms=total_ms, signal_to_noise_db=40.0, refused="")

    measured = [
        entry(0, Precision.FP32, 9.0),
        entry(1, Precision.INT8, 1.0),
        entry(2, Precision.BF16, 2.0),
        entry(3, Precision.INT8_WEIGHTS, 3.0),
    ]
    shares, asked = {1: 0.9, 2: 0.98}, []

    def judge(place: int) -> float:
        asked.append(place)
        return shares[place]

    found = choose("unet", measured, Budget(), judge)
    assert (found.least_db, choose("unet", measured).least_db) == (20.0, 25.0)  # without pictures noise has to do
    assert choose("unet", measured, Budget(least_db=30.0), judge).least_db == 30.0
    asked.clear()
    found = choose("unet", measured, Budget(least_same=0.97), judge)
    assert (asked, found.chosen.precision, found.least_same) == ([1, 2], Precision.BF16, 0.97)
    assert found.chosen.same_pictures == 0.98 and found.measurements[3] is measured[3]
    assert "0.900 of the judged pictures" in found.measurements[1].refused
    shares[2] = 0.5
    shares[3] = 0.0
    assert choose("unet", measured, Budget(), judge).chosen is measured[0]  # fp32 is not judged


def test_what_is_asked_for_goes_before_fp32(measurements):
    slow = replace(measurements[1], precision=Precision.INT8, total_ms=9.0, refused="")
    fast = replace(measurements[0], total_ms=1.0)
    assert choose("unet", [fast, slow], lower=True).chosen is slow
    assert choose("unet", [fast, slow]).chosen is fast
    assert choose("unet", [fast, replace(slow, refused="wrong")], lower=True).chosen is fast


def _uses(measurements, *rows):
    """Of rows (precision, MB, ms for prompts, ms for decoding) the measurements of both uses."""
    return {
        use: [
            replace(measurements[0], precision=precision, bytes=megabytes * 10**6, total_ms=times[i], refused="")
            for precision, megabytes, *times in rows
        ]
        for i, use in enumerate(("llm", "llm_decode"))
    }


FP32, DYNAMIC, FOUR = Precision.FP32, Precision.INT8_DYNAMIC, Precision.INT4_WEIGHTS


def _chosen(uses, budget=None, judges=None, *, lower=False):
    found = choose_graphs(uses, budget or Budget(), judges or {}, lower=lower)
    return tuple(choice.chosen.precision for choice in found.values())


def test_a_second_graph_has_to_earn_its_memory(measurements):
    """100 MB more for 12 ms of a turn: not by default; where memory counts less, or it saves 30 ms, it is taken."""
    rows = [(FP32, 540, 250.0, 600.0), (DYNAMIC, 140, 100.0, 290.0), (FOUR, 100, 200.0, 278.0)]
    assert _chosen(_uses(measurements, *rows)) == (DYNAMIC, DYNAMIC)
    assert _chosen(_uses(measurements, *rows), Budget(ms_per_mb=0.0)) == (DYNAMIC, FOUR)
    rows[2] = (FOUR, 100, 200.0, 260.0)
    assert _chosen(_uses(measurements, *rows)) == (DYNAMIC, FOUR)


def test_graphs_together_are_not_larger_than_the_fp32_one(measurements):
    """fp32 for prompts beside 8 bits for decoding would hold the weights twice, whatever time it saved."""
    rows = [(FP32, 540, 100.0, 600.0), (DYNAMIC, 140, 300.0, 200.0)]
    assert _chosen(_uses(measurements, *rows), Budget(ms_per_mb=0.0)) == (DYNAMIC, DYNAMIC)
    uses = _uses(measurements, *rows)
    uses["llm"][1] = replace(uses["llm"][1], refused="too far off")
    assert _chosen(uses, Budget(ms_per_mb=0.0)) == (FP32, FP32)
    rows[1] = (DYNAMIC, 640, 300.0, 200.0)  # of a toy: nothing is smaller than fp32
    assert _chosen(_uses(measurements, *rows), lower=True) == (DYNAMIC, DYNAMIC)


def test_memory_alone_takes_the_smaller_of_two_that_are_as_fast(measurements):
    rows = [(FP32, 540, 100.0, 100.0), (DYNAMIC, 140, 101.0, 101.0)]
    assert _chosen(_uses(measurements, *rows)) == (DYNAMIC, DYNAMIC)
    assert _chosen(_uses(measurements, *rows), Budget(ms_per_mb=0.0)) == (FP32, FP32)


def test_a_graph_that_pictures_refuse_is_refused_for_its_use_alone(measurements):
    rows = [(FP32, 540, 250.0, 600.0), (DYNAMIC, 140, 100.0, 200.0), (FOUR, 100, 150.0, 215.0)]
    asked = []

    def judge(place: int) -> float:
        asked.append(place)
        return 0.5 if place == 1 else 1.0

    assert _chosen(_uses(measurements, *rows), judges={"llm": judge}) == (FOUR, FOUR)
    assert asked == [1, 2]


def test_the_unet_is_timed_for_all_of_its_steps(candidates):
    (case,) = workload(SPEC, samples(), steps=8)
    assert (SPEC.name, case.calls) == ("unet", 8)


def test_errors_of_hidden_states_are_those_of_each_position(bundle):
    """The first position's size must not hide the others' errors."""
    spec = stage(bundle.manifest.dimensions, "llm")
    rng, width = np.random.default_rng(0), bundle.manifest.dimensions.hidden
    states = rng.standard_normal((1, 10, bundle.manifest.dimensions.features)).astype(np.float32)
    states[:, 0] *= 1000
    off = states.copy()
    off[:, 1:, :width] *= 1.1
    logits = np.ones((1, 1, bundle.manifest.dimensions.vocabulary), np.float32)
    exact = [{"logits": logits, "hidden_states": states}]
    assert relative_l2(off, states) < 1e-3
    error = worst_error(spec, [{"logits": logits, "hidden_states": off}], exact)
    assert error == pytest.approx(0.1 * (9 / 10) ** 0.5, rel=1e-3)
    assert worst_error(spec, [{"logits": 2 * logits, "hidden_states": off}], exact) == pytest.approx(1.0)
    assert worst_error(spec, exact, exact) == 0


def test_layers_are_given_back_until_the_budget_holds(candidates, tmp_path):
    source = candidates[0].path
    options = CandidateOptions(least_db=38.0)
    (found,) = [
        c
        for c in make_candidates(StageJob(SPEC, source, samples(), tmp_path), [Precision.INT8], options)
        if c.engine is Engine.OPENVINO
    ]
    spared = [name for name, reason in found.kept.items() if "most sensitive" in reason]
    assert spared and found.quantised + len(spared) == 5
    fp32 = candidates[0]
    (exact, measured) = measure(SPEC, [fp32, found], samples(), Measuring(36.0, 1, 1))
    assert not measured.refused and not exact.refused


def test_a_form_that_cannot_be_made_says_why(tmp_path, candidates):
    (int8, *others) = make_candidates(
        StageJob(SPEC, candidates[0].path, samples(), tmp_path), [Precision.INT8], CandidateOptions(least_db=98.0)
    )
    assert int8.path is None and all(c.path is None for c in others) and "98 dB only with all layers" in int8.note
    found = measure(SPEC, [candidates[0], int8], samples(), Measuring(rounds=1, threads=1))
    assert found[1].refused == int8.note and found[1].total_ms is None


def test_dynamic_graphs_are_the_same_each_time(candidates, tmp_path):
    files = [write_dynamic(candidates[0].path, tmp_path / name / "unet.onnx") for name in ("a", "b")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_language_models_two_uses_have_their_own_samples(bundle, data):
    spec = stage(bundle.manifest.dimensions, "llm")

    def samples():
        return data.samples("llm")

    several, one = (workload(spec, some) for some in (reading(samples), decoding(samples)))
    assert [case.name for case in several] == ["prefill", "image_tokens"]
    assert [case.name for case in one] == ["decode"] and one[0].feeds["inputs_embeds"].shape[1] == 1
    count = sum(1 for some in (reading(samples), decoding(samples)) for _ in some())
    assert count == len(data.manifest.stages["llm"])


def test_the_language_model_is_timed_as_a_turn_uses_it(bundle, data):
    spec = stage(bundle.manifest.dimensions, "llm")
    cases = {case.name: case for case in workload(spec, lambda: data.samples("llm"))}
    assert set(cases) == {"prefill", "image_tokens", "decode"}
    assert cases["decode"].calls > cases["prefill"].calls == 1
    assert cases["decode"].feeds["inputs_embeds"].shape[1] == 1


def test_what_a_turn_calls_often_is_timed_in_a_row(bundle, data):
    """Called once a round, weights would be found put out of the processor's cache by the other candidates'."""
    cases = workload(stage(bundle.manifest.dimensions, "llm"), lambda: data.samples("llm"))
    called = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        def run(self, feeds):
            called.append((self.name, next(case.name for case in cases if case.feeds is feeds)))

    found = _times([Named("a"), Named("b")], cases, rounds=2)
    once = [case.name for case in cases for _ in range(4 if case.name == "decode" else 1)]
    assert called == [(name, case) for _ in range(3) for name in "ab" for case in once]
    assert {case: len(times) for case, times in found[0].items()} == {"prefill": 2, "image_tokens": 2, "decode": 8}
