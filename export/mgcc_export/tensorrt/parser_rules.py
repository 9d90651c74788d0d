"""What TensorRT's ONNX parser does not take of an operator that it has, a rule each, with the release that takes it.

From the importers of ONNX-TensorRT 10.3, which say so where they refuse a node, and its changelog.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from mgcc_calibration.graphs.edit import constant
from mgcc_export.tensorrt.parser_facts import Version

MOST_TOP_K = 3840
_INTEGERS = (ir.DataType.INT32, ir.DataType.INT64)
_RESIZE_WAYS = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")


def input_of(node: ir.Node, place: int) -> ir.Value | None:
    """An input; None where it is absent."""
    return node.inputs[place] if len(node.inputs) > place else None


def is_computed(node: ir.Node, place: int) -> bool:
    """Whether an input is there and no constant."""
    value = input_of(node, place)
    return value is not None and constant(value) is None


def kind(node: ir.Node, place: int) -> ir.DataType | None:
    """Element type of an input; None where it is absent or not stated."""
    value = input_of(node, place)
    return None if value is None else kind_of(value)


def kind_of(value: ir.Value) -> ir.DataType | None:
    """Element type of a tensor; None where it is not stated."""
    tensor = constant(value)
    return value.dtype if tensor is None else tensor.dtype


def values(node: ir.Node, place: int) -> NDArray[Any] | None:
    """A constant input's values."""
    tensor = constant(input_of(node, place))
    return None if tensor is None else tensor.numpy()


def attribute(node: ir.Node, name: str, otherwise: Any = None) -> Any:
    """An attribute's value, or what it is where it is absent."""
    found = node.attributes.get(name)
    return otherwise if found is None else found.value


@dataclass(frozen=True)
class Rule:
    """What the parser refuses before a release. `since` None: all known ones refuse it."""

    told: str  # what a node has, in words that follow "has"
    operators: frozenset[str]
    broken: Callable[[ir.Node, int], bool]  # of a node in a graph of this opset
    since: Version | None = None


def _rule(told: str, operators: str, broken: Callable[[ir.Node, int], bool], since: Version | None = None) -> Rule:
    return Rule(told, frozenset(operators.split()), broken, since)


def _scale_is_not_positive(node: ir.Node, _: int) -> bool:
    scale = values(node, 1)
    return scale is not None and bool((scale.astype(np.float32) <= 0).any())


def _zero_point_is_not_zero(node: ir.Node, _: int) -> bool:
    zero = values(node, 2)
    return zero is not None and bool(zero.astype(np.int32).any())


def _is_odd(node: ir.Node, _: int) -> bool:
    tensor = constant(input_of(node, 0))
    lengths = () if tensor is None or tensor.dtype is not ir.DataType.INT4 else tensor.shape.numpy()
    return bool(lengths) and lengths[-1] % 2 > 0


def _types_differ(node: ir.Node, _: int) -> bool:
    return len({kind(node, place) for place in range(5)} - {None}) > 1


def _has_no_axes(node: ir.Node, _: int) -> bool:
    """And a shape that is not stated, of which the parser would have to know them."""
    shape = None if node.inputs[0] is None else node.inputs[0].shape
    return len(node.inputs) < 2 and (shape is None or any(not isinstance(length, int) for length in shape))


def _selects_too_many(node: ir.Node, _: int) -> bool:
    count = values(node, 1)
    return count is not None and int(count.reshape(-1)[0]) >= MOST_TOP_K


def _resizes_otherwise(node: ir.Node, _: int) -> bool:
    way = attribute(node, "coordinate_transformation_mode", "half_pixel")
    policy = attribute(node, "keep_aspect_ratio_policy", "stretch")
    return bool(attribute(node, "antialias", 0)) or policy != "stretch" or way not in _RESIZE_WAYS


_REDUCTIONS = (
    "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"
)
_QUANTISERS = "QuantizeLinear DequantizeLinear"
RULES = (
    _rule("axes that are computed", "Squeeze Unsqueeze", lambda n, _: is_computed(n, 1), (10, 7)),
    _rule("axes that are computed", "Pad", lambda n, _: is_computed(n, 3), (10, 4)),
    _rule("an axis that is computed", "CumSum", lambda n, _: is_computed(n, 1), (10, 8)),
    _rule("axes that are computed", _REDUCTIONS, lambda n, _: is_computed(n, 1)),
    _rule("no axes, and a shape that is not stated", "Squeeze", _has_no_axes),
    _rule("scales and shifts by channel, as of opset 21", "GroupNormalization", lambda _, opset: opset >= 21, (10, 9)),
    _rule("the attribute reduction", "ScatterND", lambda n, _: attribute(n, "reduction") is not None, (10, 9)),
    _rule("a reduction other than none", "ScatterND", lambda n, _: attribute(n, "reduction", "none") != "none"),
    _rule("integers for a base", "Pow", lambda n, _: kind(n, 0) in _INTEGERS, (10, 12)),
    _rule("an exponent of integers", "Pow", lambda n, _: kind(n, 1) in _INTEGERS, (10, 8)),
    _rule("tensors of several types", "BatchNormalization", _types_differ, (10, 7)),
    _rule("uint8 values", _QUANTISERS, lambda n, _: ir.DataType.UINT8 in (kind(n, 0), kind(n, 2)), (10, 10)),
    _rule("a zero point other than 0", _QUANTISERS, _zero_point_is_not_zero),
    _rule("a scale that is not above 0", _QUANTISERS, _scale_is_not_positive),
    _rule("4-bit weights with an odd last length", "DequantizeLinear", _is_odd),
    _rule("results that are not sorted", "TopK", lambda n, _: attribute(n, "sorted", 1) != 1),
    _rule(f"{MOST_TOP_K} results or more", "TopK", _selects_too_many),
    _rule("antialiasing, a kept aspect ratio or an unknown way to place pixels", "Resize", _resizes_otherwise),
    _rule("more than one result", "LayerNormalization MaxPool", lambda n, _: len([o for o in n.outputs if o.name]) > 1),
    _rule(
        "dilations", "AveragePool LpPool MaxPool", lambda n, _: any(d != 1 for d in attribute(n, "dilations", ()))
    ),
)  # fmt: skip
