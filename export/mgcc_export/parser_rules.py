"""What TensorRT's ONNX parser does not take of an operator that it has, a rule each, with the release that takes it.

From the importers of ONNX-TensorRT 10.3, which say so where they refuse a node, and its changelog.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

from mgcc_export.parser_facts import Version

MOST_TOP_K = 3840
_INTEGERS = (TensorProto.INT32, TensorProto.INT64)
_RESIZE_WAYS = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")


@dataclass(frozen=True)
class GraphFacts:
    """A graph as the rules ask of it; weights in a file of their own are in `folder`."""

    graph: GraphProto
    opset: int
    folder: Path
    constants: Mapping[str, TensorProto] = field(init=False)
    kinds: Mapping[str, int] = field(init=False)  # element type by tensor, where it is stated
    ranks: Mapping[str, int] = field(init=False)
    dynamic: frozenset[str] = field(init=False)  # tensors with a length that is not stated

    def __post_init__(self) -> None:
        g = self.graph
        made = {n.output[0]: a.t for n in g.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"}
        constants = {**made, **{w.name: w for w in g.initializer}}
        stated = {v.name: v.type.tensor_type for v in (*g.value_info, *g.input, *g.output)}
        kinds = {n: t.elem_type for n, t in stated.items()} | {n: t.data_type for n, t in constants.items()}
        unknown = {n for n, t in stated.items() if any(not d.HasField("dim_value") for d in t.shape.dim)}
        for name, value in (("constants", constants), ("kinds", kinds), ("dynamic", frozenset(unknown))):
            object.__setattr__(self, name, value)
        object.__setattr__(self, "ranks", {n: len(t.shape.dim) for n, t in stated.items()})

    def is_computed(self, node: NodeProto, place: int) -> bool:
        """Whether an input is there and no constant."""
        return len(node.input) > place and bool(node.input[place]) and node.input[place] not in self.constants

    def kind(self, node: NodeProto, place: int) -> int:
        """Element type of an input; 0 where it is absent or not stated."""
        return self.kinds.get(node.input[place], 0) if len(node.input) > place else 0

    def values(self, node: NodeProto, place: int) -> NDArray[Any] | None:
        """A constant input's values."""
        tensor = self.constants.get(node.input[place]) if len(node.input) > place else None
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor, str(self.folder)))


def attribute(node: NodeProto, name: str, otherwise: Any = None) -> Any:
    """An attribute's value, or what it is where it is absent."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), otherwise)


@dataclass(frozen=True)
class Rule:
    """What the parser refuses before a release. `since` None: all known ones refuse it."""

    told: str  # what a node has, in words that follow "has"
    operators: frozenset[str]
    broken: Callable[[NodeProto, GraphFacts], bool]
    since: Version | None = None


def _rule(
    told: str, operators: str, broken: Callable[[NodeProto, GraphFacts], bool], since: Version | None = None
) -> Rule:
    return Rule(told, frozenset(operators.split()), broken, since)


def _scale_is_not_positive(node: NodeProto, facts: GraphFacts) -> bool:
    scale = facts.values(node, 1)
    return scale is not None and bool((scale.astype(np.float32) <= 0).any())


def _zero_point_is_not_zero(node: NodeProto, facts: GraphFacts) -> bool:
    zero = facts.values(node, 2)
    return zero is not None and bool(zero.astype(np.int32).any())


def _is_odd(node: NodeProto, facts: GraphFacts) -> bool:
    tensor = facts.constants.get(node.input[0])
    return tensor is not None and tensor.data_type == TensorProto.INT4 and bool(tensor.dims) and tensor.dims[-1] % 2 > 0


def _types_differ(node: NodeProto, facts: GraphFacts) -> bool:
    return len({facts.kind(node, place) for place in range(5)} - {0}) > 1


def _selects_too_many(node: NodeProto, facts: GraphFacts) -> bool:
    count = facts.values(node, 1)
    return count is not None and int(count.reshape(-1)[0]) >= MOST_TOP_K


def _resizes_otherwise(node: NodeProto, facts: GraphFacts) -> bool:
    way = attribute(node, "coordinate_transformation_mode", b"half_pixel").decode()
    policy = attribute(node, "keep_aspect_ratio_policy", b"stretch")
    return bool(attribute(node, "antialias", 0)) or policy != b"stretch" or way not in _RESIZE_WAYS


_REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
_QUANTISERS = "QuantizeLinear DequantizeLinear"
RULES = (
    _rule("axes that are computed", "Squeeze Unsqueeze", lambda n, f: f.is_computed(n, 1), (10, 7)),
    _rule("axes that are computed", "Pad", lambda n, f: f.is_computed(n, 3), (10, 4)),
    _rule("an axis that is computed", "CumSum", lambda n, f: f.is_computed(n, 1), (10, 8)),
    _rule("axes that are computed", _REDUCTIONS, lambda n, f: f.is_computed(n, 1)),
    _rule(
        "no axes, and a shape that is not stated", "Squeeze",
        lambda n, f: len(n.input) < 2 and (n.input[0] in f.dynamic or n.input[0] not in f.ranks),
    ),
    _rule("scales and shifts by channel, as of opset 21", "GroupNormalization", lambda _, f: f.opset >= 21, (10, 9)),
    _rule("the attribute reduction", "ScatterND", lambda n, _: attribute(n, "reduction") is not None, (10, 9)),
    _rule("a reduction other than none", "ScatterND", lambda n, _: attribute(n, "reduction", b"none") != b"none"),
    _rule("integers for a base", "Pow", lambda n, f: f.kind(n, 0) in _INTEGERS, (10, 12)),
    _rule("an exponent of integers", "Pow", lambda n, f: f.kind(n, 1) in _INTEGERS, (10, 8)),
    _rule("tensors of several types", "BatchNormalization", _types_differ, (10, 7)),
    _rule(
        "uint8 values", _QUANTISERS, lambda n, f: TensorProto.UINT8 in (f.kind(n, 0), f.kind(n, 2)), (10, 10)
    ),
    _rule("a zero point other than 0", _QUANTISERS, _zero_point_is_not_zero),
    _rule("a scale that is not above 0", _QUANTISERS, _scale_is_not_positive),
    _rule("4-bit weights with an odd last length", "DequantizeLinear", _is_odd),
    _rule("results that are not sorted", "TopK", lambda n, _: attribute(n, "sorted", 1) != 1),
    _rule(f"{MOST_TOP_K} results or more", "TopK", _selects_too_many),
    _rule("antialiasing, a kept aspect ratio or an unknown way to place pixels", "Resize", _resizes_otherwise),
    _rule("more than one result", "LayerNormalization MaxPool", lambda n, _: len([o for o in n.output if o]) > 1),
    _rule(
        "dilations", "AveragePool LpPool MaxPool", lambda n, _: any(d != 1 for d in attribute(n, "dilations", ()))
    ),
)  # fmt: skip
