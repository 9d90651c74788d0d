"""Ranges where the answer is known, groups of timesteps, and smoothing."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from mgcc_calibration.graphs.layers import find_layers, left_alone
from mgcc_calibration.quantise.activation_ranges import BINS, Histogram, Method, choose_range, relative_error
from mgcc_calibration.quantise.observe import measure_limits, timestep_groups
from mgcc_calibration.quantise.plan import PlanOptions, Smoothing, make_plan
from mgcc_calibration.quantise.qdq import write_qdq
from mgcc_calibration.quantise.smoothquant import apply_factors, choose_factors
from mgcc_runtime.measure.similarity import relative_l2
from tests.calibration.small_stage import CHANNELS, LOUD, graph_of, make_graph, make_model, run, samples


def histogram(values, limit=None):
    found = Histogram.empty(float(np.abs(values).max()) if limit is None else limit)
    found.add(np.asarray(values, np.float32))
    return found


@pytest.fixture
def with_outlier():
    """A hundred thousand normal values and one of 100."""
    values = np.random.default_rng(0).standard_normal(100_000)
    values[0] = 100.0
    return values


def test_a_histogram_counts_everything_once(with_outlier):
    found = histogram(with_outlier)
    assert found.counts.sum() == with_outlier.size and found.counts[BINS - 1] == 1
    assert found.power == pytest.approx(np.square(with_outlier).sum(), rel=0.02)


def test_min_max_takes_all_and_the_others_leave_an_outlier(with_outlier):
    groups = [histogram(with_outlier)]
    assert choose_range(groups, Method.MIN_MAX) == pytest.approx(100)
    assert choose_range(groups, Method.PERCENTILE, 99.9) == pytest.approx(
        np.quantile(np.abs(with_outlier), 0.999), abs=0.1
    )
    for method in (Method.ENTROPY, Method.MSE):
        assert 2 < choose_range(groups, method) < 70  # of the squared error, tried directly, the best is 65.6


def real_error(values, bound):
    """Squared error of int8 over [-bound, bound] relative to the power, on the values themselves."""
    values, step = values.astype(np.float64), bound / 127
    error = np.clip(np.round(values / step), -127, 127) * step - values
    return float(np.square(error).sum() / np.square(values).sum())


def laplace(rng):
    return rng.laplace(size=50_000)


def mostly_zeros(rng):
    """98 % exact zeros, as in padding or behind a ReLU."""
    return rng.standard_normal(100_000) * (rng.random(100_000) < 0.02)


def attention_sink(rng):
    """Five values of about a thousand among normal ones."""
    values = rng.standard_normal(100_000)
    values[:5] = 1000 + 100 * rng.random(5)
    return values


@pytest.mark.parametrize("make", [laplace, mostly_zeros, attention_sink])
def test_mse_is_the_least_error_measured_directly(make):
    """Against trying all ranges on the values themselves, without a histogram."""
    values = make(np.random.default_rng(1)).astype(np.float32)
    limit = float(np.abs(values).max())
    least = min(real_error(values, limit * (i + 1) / 64) for i in range(64))
    assert real_error(values, choose_range([histogram(values)], Method.MSE)) <= 1.05 * least


@pytest.mark.parametrize("bound", [3.0, 5.0, 8.0])
def test_relative_error_is_the_real_one(bound):
    values = np.random.default_rng(2).standard_normal(100_000).astype(np.float32)
    assert relative_error(histogram(values), bound) == pytest.approx(real_error(values, bound), rel=0.1)


@pytest.mark.parametrize("bins", [0.25, 0.5, 0.97, 1.0, 1.03, 1.5, 2.0])
def test_relative_error_is_the_real_one_where_a_step_is_about_a_bin(bins):
    """There the bins' centres alone would mislead: of equal widths all lie half-way between two levels, or on them."""
    values = np.random.default_rng(6).uniform(0, 1 / 16, 100_000).astype(np.float32)
    bound = bins / BINS * 127  # with a limit of 1
    assert relative_error(histogram(values, 1.0), bound) == pytest.approx(real_error(values, bound), rel=0.1)


def test_zeros_have_no_range():
    assert choose_range([Histogram.empty(0.0)], Method.MSE) == 0.0


def test_quiet_timesteps_are_not_drowned_by_loud_ones():
    """Ten thousand small values a quiet step, and a loud step forty times as large."""
    rng = np.random.default_rng(3)
    loud = rng.standard_normal(20_000) * 40
    quiet = [rng.standard_normal(20_000) for _ in range(4)]
    limit = float(np.abs(loud).max())
    grouped = [histogram(v, limit) for v in (loud, *quiet)]
    pooled = [histogram(np.concatenate([loud, *quiet]), limit)]
    errors = [relative_error(grouped[1], choose_range(groups, Method.MSE)) for groups in (grouped, pooled)]
    assert errors[0] < 0.8 * errors[1]


def test_timesteps_fall_into_groups_of_equal_size():
    group_of = timestep_groups(samples(12), 4)
    assert [group_of(feeds) for feeds in samples(12)()] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert timestep_groups(lambda: iter([{"x": np.zeros(1)}]), 4)({"x": np.zeros(1)}) == 0


@pytest.fixture
def smoothed():
    graph = make_graph()
    layers = find_layers(graph)
    layers = tuple(x for x in layers if x.name not in left_alone(graph, layers))
    names = sorted({x.data for x in layers if x.name.startswith("to_")})
    limits = measure_limits(graph, names, names, samples())
    assert limits["norm_out"].channels.shape == (CHANNELS,)
    assert int(np.argmax(limits["norm_out"].channels)) == LOUD
    factors = choose_factors(graph, layers, limits)
    return graph, layers, factors


def test_smoothing_quietens_the_loud_channel_and_changes_nothing(smoothed):
    graph, layers, factors = smoothed
    assert int(np.argmax(factors["norm_out"])) == LOUD
    after, _ = apply_factors(graph, layers, factors)
    for feeds in samples(3)():
        assert relative_l2(run(after, feeds), run(graph, feeds)) < 1e-5


@pytest.mark.parametrize("tensor", ["norm_out", "gated_out"])
def test_smoothing_is_folded_into_the_norm_and_into_the_gated_weight(smoothed, tensor):
    graph, layers, _ = smoothed
    folded, _ = apply_factors(graph, layers, {tensor: np.linspace(0.5, 2, CHANNELS).astype(np.float32)})
    assert len(folded.nodes) == len(graph.nodes)
    for feeds in samples(2)():
        assert relative_l2(run(folded, feeds), run(graph, feeds)) < 1e-5


def test_smoothing_is_put_in_where_something_else_reads_what_it_would_scale():
    model = make_model()
    model.graph.node.append(onnx.helper.make_node("Identity", ["to_a_out"], ["also_read"], name="also"))
    graph = graph_of(model)
    layers = find_layers(graph)
    put_in, moved = apply_factors(graph, layers, {"gated_out": np.linspace(0.5, 2, CHANNELS).astype(np.float32)})
    assert len(put_in.nodes) == len(graph.nodes) + 1
    assert next(x for x in moved if x.name == "to_out").data == "gated_out_smoothed"
    for feeds in samples(2)():
        assert relative_l2(run(put_in, feeds), run(graph, feeds)) < 1e-5


def test_smoothing_lowers_the_error():
    graph, errors = make_graph(), {}
    for smoothing in Smoothing:
        plan = make_plan(graph, samples(), PlanOptions(smoothing=smoothing))
        plan = plan.only({"to_a", "to_b"})
        quantised = write_qdq(plan)
        errors[smoothing] = sum(relative_l2(run(quantised, f), run(graph, f)) for f in samples(4, seed=7)())
    assert errors[Smoothing.SEARCH] < 0.8 * errors[Smoothing.OFF]
