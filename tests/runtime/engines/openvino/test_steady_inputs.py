"""What OpenVINO computes once a request: what the whole graph gives, and never what belongs to another request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper

from mgcc_runtime.contract import DType, StageSpec, TensorSpec
from mgcc_runtime.engines import EngineOptions, Session, open_session
from mgcc_runtime.engines.openvino.steady_inputs import SteadyHalf, split

STEADY = ("conditioning", "guidance")


def tensor(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, DType.FLOAT32, shape, "")


#: guidance * latents @ Q/DQ(tanh(conditioning @ w)) + timestep
SPEC = StageSpec(
    "unet",
    (tensor("latents", 1, 2, 4), tensor("timestep", 1), tensor("conditioning", 1, 4, 8), tensor("guidance", 1)),
    (tensor("prediction", 1, 2, 8),),
    "",
    STEADY,
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    weight = np.random.default_rng(3).standard_normal((8, 8)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["conditioning", "weight"], ["product"]),
        helper.make_node("Tanh", ["product"], ["keys"]),
        helper.make_node("QuantizeLinear", ["keys", "scale", "zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["keys_rounded"]),
        helper.make_node("MatMul", ["latents", "keys_rounded"], ["seen"]),
        helper.make_node("Mul", ["guidance", "seen"], ["guided"]),
        helper.make_node("Add", ["guided", "timestep"], ["prediction"]),
    ]
    constants = [
        numpy_helper.from_array(weight, "weight"),
        numpy_helper.from_array(np.float32(1 / 127), "scale"),
        numpy_helper.from_array(np.int8(0), "zero"),
    ]

    def values(tensors: tuple[TensorSpec, ...]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.shape) for t in tensors]

    graph = helper.make_graph(nodes, "steady", values(SPEC.inputs), values(SPEC.outputs), constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    found = tmp_path_factory.mktemp("steady") / "unet.onnx"
    onnx.save(model, found)
    return found


def feeds(request: int, step: int = 0) -> dict[str, np.ndarray]:
    """Of a step of a request: its steady inputs are the request's."""
    of_request, of_step = np.random.default_rng(request), np.random.default_rng(100 + step)
    return {
        "latents": of_step.standard_normal((1, 2, 4)).astype(np.float32),
        "timestep": np.array([step], np.float32),
        "conditioning": of_request.standard_normal((1, 4, 8)).astype(np.float32),
        "guidance": np.array([2.0 + request], np.float32),
    }


class Counting:
    """An inference request that counts."""

    def __init__(self, request: Any) -> None:
        self.request, self.calls = request, 0

    def infer(self, values: Mapping[str, np.ndarray], **options: Any) -> Any:
        self.calls += 1
        return self.request.infer(values, **options)

    def get_tensor(self, port: Any) -> Any:
        return self.request.get_tensor(port)


class Opened:
    """The stage in halves and whole, and a count of the steady half's runs."""

    def __init__(self, path: Path) -> None:
        self.halves: Session = open_session("openvino", path, SPEC, EngineOptions(1))
        self.whole: Session = open_session("openvino", path, replace(SPEC, steady=()), EngineOptions(1))
        steady: SteadyHalf = self.halves._engine._steady  # type: ignore[union-attr]
        self.counting = steady._request = Counting(steady._request)

    def agree(self, given: dict[str, np.ndarray]) -> bool:
        return np.allclose(self.halves.run(given)["prediction"], self.whole.run(given)["prediction"], atol=1e-5)


@pytest.fixture
def opened(path: Path) -> Opened:
    return Opened(path)


def test_steps_of_a_request_share_the_steady_half(opened: Opened) -> None:
    assert all(opened.agree(feeds(0, step)) for step in range(5))
    assert opened.counting.calls == 1


def test_each_request_has_its_own(opened: Opened) -> None:
    first, second = (opened.halves.run(feeds(request))["prediction"] for request in (0, 1))
    assert not np.allclose(first, second)
    assert all(opened.agree(feeds(request)) for request in (1, 2, 0))


def test_requests_that_take_turns_are_kept(opened: Opened) -> None:
    assert all(opened.agree(feeds(step % 4, step)) for step in range(12))
    assert opened.counting.calls == 4
    assert opened.agree(feeds(4)) and opened.agree(feeds(0))  # the fifth has put out the first
    assert opened.counting.calls == 6


def test_an_array_that_is_written_over_is_another_request(opened: Opened) -> None:
    given = feeds(0)
    assert opened.agree(given)
    given["conditioning"] *= -1
    assert opened.agree(given) and opened.counting.calls == 2


def test_one_steady_input_that_changes_is_enough(opened: Opened) -> None:
    """Guidance alone feeds nothing by itself here: it is given to the other half, at each step."""
    assert opened.agree(feeds(0)) and opened.agree(feeds(0) | {"guidance": np.array([9.0], np.float32)})
    assert opened.counting.calls == 1


def test_the_cut_is_before_a_quantisation(path: Path) -> None:
    """Behind it, what computes with the codes would see floats, and run in them."""
    halves = split(ov.Core().read_model(path), STEADY)
    assert halves is not None and len(halves.links) == 1
    kinds = [[o.get_type_name() for o in half.get_ordered_ops()] for half in (halves.ahead, halves.each)]
    assert "Tanh" in kinds[0] and "FakeQuantize" not in kinds[0]
    assert "Tanh" not in kinds[1] and "FakeQuantize" in kinds[1]
    assert {p.output(0).get_any_name() for p in halves.ahead.get_parameters()} == {"conditioning"}


def test_nothing_to_compute_ahead(path: Path) -> None:
    model = ov.Core().read_model(path)
    assert split(model, ["guidance"]) is None
    assert split(model, []) is None
