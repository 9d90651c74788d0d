"""Stages and their example inputs derive from the contract."""

from __future__ import annotations

import pytest
import torch

from mgcc_export.errors import UnavailableError
from mgcc_export.stages.answers import cases_of
from mgcc_export.stages.stage import GOLDEN_LENGTHS, ExampleMaker, cases_note, collect_stages, input_axes, value_cases
from mgcc_ref.model import MgccModel
from mgcc_runtime.contract import DType, stages

_TYPES = {DType.FLOAT32: torch.float32, DType.INT64: torch.int64, DType.BOOL: torch.bool}


def test_every_stage_of_the_contract_is_there_in_order(tiny: MgccModel) -> None:
    assert [s.name for s in collect_stages(tiny)] == [s.name for s in stages(tiny.dimensions)]


def test_named_stages_keep_the_pipelines_order(tiny: MgccModel) -> None:
    assert [s.name for s in collect_stages(tiny, ["unet", "llm"])] == ["llm", "unet"]


def test_an_unknown_stage_is_refused_with_the_list(tiny: MgccModel) -> None:
    with pytest.raises(UnavailableError, match="profile tiny has no stage unett; choose from vision_encoder, llm"):
        collect_stages(tiny, ["unett"])


@pytest.mark.parametrize("name", ["vision_encoder", "llm", "refiner", "grounder", "unet", "vae_decoder"])
def test_examples_have_the_contracts_shapes_and_types_and_repeat(tiny: MgccModel, name: str) -> None:
    (stage,) = collect_stages(tiny, [name])
    inputs = ExampleMaker(tiny).inputs(stage.spec, GOLDEN_LENGTHS)
    for tensor, value in zip(stage.spec.inputs, inputs, strict=True):
        shape = tuple(GOLDEN_LENGTHS[e] if isinstance(e, str) else e for e in tensor.shape)
        assert (tuple(value.shape), value.dtype) == (shape, _TYPES[tensor.dtype])
    again = ExampleMaker(tiny).inputs(stage.spec, GOLDEN_LENGTHS)
    assert all(torch.equal(a, b) for a, b in zip(inputs, again, strict=True))


def test_cases_reach_both_ends_of_every_axis(tiny: MgccModel) -> None:
    for stage in collect_stages(tiny):
        cases = value_cases(stage)
        for axis in {e for t in stage.spec.inputs for e in t.shape if isinstance(e, str)} - {"P"}:
            lengths = {case[axis] for case in cases}
            assert {stage.axes[axis].minimum, stage.axes[axis].maximum} <= lengths


def test_cases_of_the_cache_stay_within_the_context(tiny: MgccModel) -> None:
    (llm,) = collect_stages(tiny, ["llm"])
    cases = value_cases(llm)
    assert {"S": 1, "P": 0, "T": 1} in cases
    assert {"S": 1, "P": 255, "T": 256} in cases
    assert all(c["S"] + c["P"] == c["T"] <= tiny.dimensions.context for c in cases)
    assert cases_note(llm, cases) == ""
    assert cases_note(llm, cases[:2]) == "values compared up to 2 of 256 positions"


def test_a_long_context_is_reached_by_a_decode_step(tiny: MgccModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mgcc_export.stages.stage.LLM_VALUE_POSITIONS", 100)
    (llm,) = collect_stages(tiny, ["llm"])
    assert {"S": 1, "P": 255, "T": 256} in value_cases(llm)
    assert value_cases(llm)[-2:] == [{"S": 100, "P": 0, "T": 100}, {"S": 1, "P": 99, "T": 100}]
    assert cases_note(llm, value_cases(llm)) == "values of prompts compared up to 100 of 256 positions"
    monkeypatch.setattr("mgcc_export.stages.stage.LARGE_PARAMETERS", 1000)
    assert max(c["T"] for c in value_cases(llm)) == 100


def test_lower_precision_is_compared_where_the_device_will_be(tiny: MgccModel) -> None:
    """At the lengths of the golden data too: a decision that falls otherwise there alone fails on every device."""
    for stage in collect_stages(tiny):
        axes = input_axes(stage.spec)
        assert not axes or {n: GOLDEN_LENGTHS[n] for n in axes} | _derived(axes) in cases_of(stage)


def _derived(axes: list[str]) -> dict[str, int]:
    return {"T": GOLDEN_LENGTHS["T"]} if "P" in axes else {}


def test_a_denoising_step_is_compared_at_both_ends_of_the_schedule(tiny: MgccModel) -> None:
    """A graph whose time embedding is right in the middle alone must not pass."""
    (stage,) = collect_stages(tiny, ["unet"])
    cases, maker = value_cases(stage), ExampleMaker(tiny)
    place = [t.name for t in stage.spec.inputs].index("timestep")
    timesteps = [float(maker.inputs(stage.spec, case)[place]) for case in cases]
    assert timesteps == [999.0, 417.0, 1.0]
    assert cases_of(stage) == cases
    results = [stage.module(*maker.inputs(stage.spec, case)) for case in cases]
    assert not any(torch.allclose(results[0], other) for other in results[1:])


def test_a_cache_is_the_models_own(tiny: MgccModel) -> None:
    (llm,) = collect_stages(tiny, ["llm"])
    _, *past = ExampleMaker(tiny).inputs(llm.spec, {"S": 2, "P": 5, "T": 7})
    ids = torch.randint(0, tiny.dimensions.vocabulary, (1, 5), generator=torch.Generator().manual_seed(1))
    expected = tiny.llm(tiny.embed_tokens[ids], *tiny.llm.empty_cache())[2:]
    assert all(torch.equal(a, b) for a, b in zip(past, expected, strict=True))
