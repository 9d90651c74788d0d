"""Which layers cost most, the search for a budget, and the pictures of both."""

from __future__ import annotations

import numpy as np
import pytest

from mgcc_calibration.analysis.charts import error_chart, side_by_side
from mgcc_calibration.analysis.sensitivity import (
    SAME_IMAGE_DB,
    ImageQuality,
    LayerError,
    Trial,
    keep_worst,
    layer_errors,
    main_outputs,
    stage_error,
)
from mgcc_calibration.errors import BudgetError
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.quantise.grid import Grid
from mgcc_calibration.quantise.matmul_nbits import WeightOptions, write_weight_only
from mgcc_calibration.quantise.plan import make_plan
from mgcc_calibration.quantise.qdq import write_qdq
from mgcc_runtime.contract import stage
from tests.calibration.small_stage import SPEC, make_graph, samples


@pytest.fixture(scope="module")
def plan():
    return make_plan(make_graph(), samples())


@pytest.fixture(scope="module")
def errors(plan):
    return layer_errors(plan, SPEC, samples())


def test_errors_are_those_of_one_layer_alone(plan, errors):
    assert sorted(e.layer for e in errors) == sorted(layer.name for layer in plan.layers)
    assert [e.error for e in errors] == sorted((e.error for e in errors), reverse=True)
    worst = errors[0]
    chosen = list(samples()())[::2][:6]
    assert stage_error(write_qdq(plan.only({worst.layer})), plan.graph, ["prediction"], chosen) == worst.error
    everything = stage_error(write_qdq(plan), plan.graph, ["prediction"], chosen)
    assert worst.error < everything < sum(e.error for e in errors)


def test_a_spoilt_layer_is_found_as_the_worst(plan):
    spoilt = make_plan(make_graph(), samples())
    bounds = dict(spoilt.bounds)
    target = next(layer for layer in spoilt.layers if layer.name == "to_out")
    bounds[target.data] /= 50
    found = layer_errors(type(spoilt)(**{**vars(spoilt), "bounds": bounds}), SPEC, samples())
    assert found[0].layer == "to_out"


def test_the_search_keeps_as_few_layers_as_the_budget_allows(plan, errors):
    chosen = list(samples()())[::3]

    def quality(graph: Graph) -> float:
        return -stage_error(graph, plan.graph, ["prediction"], chosen)

    none, everything = quality(write_qdq(plan)), quality(write_qdq(plan.only(())))
    least = (none + everything) / 2
    found = keep_worst(plan, errors, quality, least)
    kept = {layer.name for layer in plan.layers} - {layer.name for layer in found.plan.layers}
    assert 0 < len(kept) < len(plan.layers)
    assert kept == {e.layer for e in errors[: len(kept)]}
    assert quality(write_qdq(found.plan)) >= least
    assert all(t.quality < least for t in found.trials if t.kept == len(kept) - 1)
    assert all("quality" in found.plan.kept[name] for name in kept)


def test_a_loose_budget_keeps_none_and_an_impossible_one_is_refused(plan, errors):
    def quality(graph: Graph) -> float:
        return 1.0

    assert keep_worst(plan, errors, quality, 0.5).plan.layers == plan.layers
    with pytest.raises(BudgetError, match="expected at least 2"):
        keep_worst(plan, errors, quality, 2.0)


def test_a_plan_that_passes_whole_is_given_back_at_once(plan, errors):
    """Even where quality falls with fewer layers: nothing else is tried, and nothing unmeasured is the answer."""
    measured = []

    def quality(graph: Graph) -> float:
        measured.append(graph)
        return 1.0 if len(measured) == 1 else 0.0

    found = keep_worst(plan, errors, quality, 1.0)
    assert found.plan.layers == plan.layers and found.plan.kept == plan.kept
    assert len(measured) == 1 and found.trials == (Trial(0, 1.0),)


def test_image_quality_of_a_stage_in_the_pipeline(bundle, source):
    graph = Graph.load(bundle.file(bundle.manifest.stages["vae_decoder"].file))
    with ImageQuality(bundle, "vae_decoder", source.requests[1:], threads=1) as quality:
        assert quality(graph) == SAME_IMAGE_DB
        spoilt = graph.copy()
        for name, weight in graph.weights.items():
            if weight.dtype == 1:
                spoilt.set_weight(name, graph.weight(name) * np.float32(1.2))
        assert quality(spoilt) < 40
        sheet = side_by_side(quality.exact, quality.images_with(spoilt), ("fp32", "spoilt"))
    side = bundle.manifest.dimensions.image_px
    assert sheet.width > 3 * side and sheet.height > side


def test_outputs_that_count_leave_the_cache_out(bundle):
    assert main_outputs(stage(bundle.manifest.dimensions, "llm")) == ["logits", "hidden_states"]


def test_weight_only_graphs_take_the_same_measure(bundle, data):
    spec = stage(bundle.manifest.dimensions, "llm")
    graph = Graph.load(bundle.file(bundle.manifest.stages["llm"].file))
    packed = write_weight_only(graph, WeightOptions(Grid(8, 32), accuracy_level=0)).graph
    assert 0 < stage_error(packed, graph, main_outputs(spec), data.samples("llm")) < 0.1


def test_the_chart_has_a_bar_for_each_layer_and_shows_which_are_kept():
    errors = [LayerError("conv", "conv", 0.1), LayerError("a" * 80, "linear", 0.001), LayerError("none", "linear", 0.0)]
    (axes,) = error_chart(errors, {"conv": "worst"}, "unet").axes
    worst, least, none = axes.patches
    assert worst.get_width() > least.get_width() > none.get_width() > 0 and axes.get_xscale() == "log"
    assert worst.get_facecolor() != least.get_facecolor() == none.get_facecolor()
    (plain,) = error_chart(errors, {}, "unet").axes
    assert len({bar.get_facecolor() for bar in plain.patches}) == 1


def test_differences_are_amplified_around_grey():
    before = np.full((4, 4, 3), 100, np.uint8)
    after = before.copy()
    after[0, 0] = 110
    sheet = np.asarray(side_by_side([before], [after], ("a", "b")))
    (rows, columns) = np.nonzero((sheet == 168).all(axis=-1) & (np.arange(len(sheet)) >= len(sheet) - 20)[:, None])
    assert len(rows) == 1
    cell = sheet[rows[0] : rows[0] + 4, columns[0] : columns[0] + 4]
    assert (cell == 128).all(axis=-1).sum() == 15
