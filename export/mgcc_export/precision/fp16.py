"""An fp32 graph to a strongly typed fp16 one: every value has one type, and a Cast stands where types meet.

Precision is in the graph, since TensorRT-RTX and TensorRT 11 know no other way. Norms, positions and whatever
`activation_scan.py` found outside fp16's range stay in fp32; inputs and outputs stay fp32 too, except the cache.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from mgcc_calibration.graphs.edit import drop_unused_weights
from mgcc_calibration.graphs.storage import load_graph, save_graph
from mgcc_export.errors import ExportError

FP16_MAX = 65504.0
#: What a constant beyond fp16 becomes, such as the -3.4e38 of an attention mask: exp(-3e4 - max) is 0 all the same,
#: and adding any score of magnitude up to 3e4 does not overflow as adding to -65504 would.
MASK_VALUE = 30000.0
FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16

#: Their sums of squares overflow, or their quotients vanish, in fp16 (NVIDIA/TensorRT issues 2564 and 4493).
_NORMS = {
    "LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization", "LpNormalization",
    "ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "Pow", "Sqrt", "Reciprocal", "CumSum",
}  # fmt: skip
#: Angles of hundreds of radians: fp16 has no digits left behind the point there.
_ANGLES = {"Sin", "Cos"}
#: An order that half a digit would change.
ORDERS = {"TopK", "ArgMax", "ArgMin"}
_FROM_NOTHING = {"ConstantOfShape", "Range", "EyeLike", "RandomNormal", "RandomUniform"}
#: Norms whose result is a factor of the normalisation, not yet the normalised value.
_FACTORS = {"ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "Pow", "Sqrt", "Reciprocal"}
_ELEMENTWISE = {"Add", "Sub", "Mul", "Div", "Clip", "Max", "Min"}
#: Inputs that ONNX declares as float32 whatever the data is: (operator, place).
_ALWAYS_FLOAT = {("Resize", 1), ("Resize", 2)}


@dataclass(frozen=True)
class HalfGraph:
    """What `write_half` made: nodes with a floating-point result, by type, and those kept in fp32 by operator."""

    half_nodes: int
    float_nodes: int
    kept: dict[str, int]


def write_half(
    source: Path, target: Path, keep: Collection[str] = (), half_boundary: Collection[str] = ()
) -> HalfGraph:
    """Write the graph of `source` with fp16 weights and activations to `target`.

    `keep`: names of nodes that stay in fp32 besides the rules'. `half_boundary`: inputs and outputs of the graph
    that become fp16 themselves, such as a cache. ExportError if the graph holds what cannot be typed.
    """
    model = load_graph(source)
    graph = _Halver(model, frozenset(keep), frozenset(half_boundary)).convert()
    save_graph(model, target)
    return graph


def precise_nodes(graph: ir.Graph) -> set[ir.Node]:
    """The nodes that the rules keep in fp32."""
    found = {n for n in graph if n.op_type in _NORMS | _ANGLES | ORDERS | _FROM_NOTHING or _squares(n)}
    found |= {a for n in graph if n.op_type in _ANGLES for a in ancestors(n)}
    found |= {p for n in graph if n.op_type in ORDERS for p in _producers(n)}
    found |= {a for n in graph if _resamples(n) for a in (n, *ancestors(n))}
    # what stands between a norm's parts (the epsilon), and what multiplies by its result
    for node in graph:
        if node.op_type in _ELEMENTWISE and any(p in found and p.op_type in _FACTORS for p in _producers(node)):
            found.add(node)
    return found


def _squares(node: ir.Node) -> bool:
    return node.op_type == "Mul" and node.inputs[0] is node.inputs[1]


def _resamples(node: ir.Node) -> bool:
    """Whether it divides weights by their own sum: how much each pixel takes of which texel.

    What leads there is where boxes lie, and a texel is a fiftieth of one: rounded, the UNet of `story` missed its
    tolerance (1.03e-2 of 1e-2).
    """
    if node.op_type != "Div" or node.inputs[1] is None:
        return False
    divisor = node.inputs[1].producer()
    while divisor is not None and divisor.op_type in ("Clip", "Max") and divisor.inputs[0] is not None:
        divisor = divisor.inputs[0].producer()
    return divisor is not None and divisor.op_type == "ReduceSum" and divisor.inputs[0] is node.inputs[0]


def _producers(node: ir.Node) -> Iterable[ir.Node]:
    return [p for value in node.inputs if value is not None and (p := value.producer()) is not None]


def ancestors(node: ir.Node) -> set[ir.Node]:
    """All that a node is computed from, back to the graph's inputs and weights."""
    found: set[ir.Node] = set()
    pending = list(_producers(node))
    while pending:
        one = pending.pop()
        if one not in found:
            found.add(one)
            pending += _producers(one)
    return found


class _Halver:
    """One conversion: gives each floating-point value a type and puts Casts between."""

    def __init__(self, model: ir.Model, keep: frozenset[str], half_boundary: frozenset[str]) -> None:
        self.graph, self.half_boundary = model.graph, half_boundary
        if model.functions or any(isinstance(a, ir.Attr) and _is_graph(a) for n in self.graph for a in _attributes(n)):
            raise ExportError(f"graph {self.graph.name} holds subgraphs, which have no fp16 form here; export it flat")
        self.floats = {v for v in self._values() if self._dtype(v) is FLOAT}
        self.precise = precise_nodes(self.graph) | {n for n in self.graph if n.name in keep}
        self.weights: dict[str, ir.Value] = {}
        self.casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}

    def _values(self) -> Iterable[ir.Value]:
        yield from self.graph.inputs
        yield from self.graph.initializers.values()
        for node in self.graph:
            yield from node.outputs

    def _dtype(self, value: ir.Value) -> ir.DataType:
        if value.dtype is None:
            raise ExportError(f"value {value.name} of graph {self.graph.name} has no type; infer the types first")
        return value.dtype

    def convert(self) -> HalfGraph:
        outputs = list(self.graph.outputs)
        for value in self.graph.inputs:
            if value.name in self.half_boundary:
                value.dtype = HALF
        counts = {FLOAT: 0, HALF: 0}
        kept: dict[str, int] = {}
        for node in list(self.graph):
            results = [v for v in node.outputs if v in self.floats]
            if not results and not any(v in self.floats for v in node.inputs if v is not None):
                continue
            wanted = FLOAT if node in self.precise else HALF
            self._retype_inputs(node, wanted)
            for value in results:
                value.dtype = wanted
            if results:
                counts[wanted] += 1
                if wanted is FLOAT:
                    kept[node.op_type] = kept.get(node.op_type, 0) + 1
                if node.op_type == "Cast" and wanted is HALF:
                    node.attributes["to"] = ir.AttrInt64("to", HALF)
        self._retype_outputs(outputs)
        drop_unused_weights(self.graph)
        return HalfGraph(counts[HALF], counts[FLOAT], kept)

    def _retype_inputs(self, node: ir.Node, wanted: ir.DataType) -> None:
        for place, value in enumerate(node.inputs):
            if value is None or value not in self.floats or (node.op_type, place) in _ALWAYS_FLOAT:
                continue
            if value.is_initializer():
                node.replace_input_with(place, value if wanted is FLOAT else self._half_weight(value))
            elif value.dtype is not wanted:
                node.replace_input_with(place, self._cast(value, wanted))

    def _half_weight(self, value: ir.Value) -> ir.Value:
        """The fp16 twin of a weight; computed when the graph is written, so that one weight at a time is in memory."""
        assert value.name is not None and value.const_value is not None
        if value.name not in self.weights:
            tensor = value.const_value
            name = f"{value.name}.half"
            lazy = ir.LazyTensor(
                lambda: ir.Tensor(to_half(tensor.numpy()), name=name), HALF, ir.Shape(tensor.shape.numpy()), name=name
            )
            twin = ir.Value(name=name, shape=value.shape, type=ir.TensorType(HALF), const_value=lazy)
            self.graph.initializers[name] = twin
            self.weights[value.name] = twin
        return self.weights[value.name]

    def _cast(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        if (value, wanted) not in self.casts:
            cast = _cast_node(value, wanted, f"{value.name}.{'half' if wanted is HALF else 'float'}")
            producer = value.producer()
            if producer is None:
                self.graph.insert_before(self.graph[0], cast)
            else:
                self.graph.insert_after(producer, cast)
            self.casts[value, wanted] = cast.outputs[0]
        return self.casts[value, wanted]

    def _retype_outputs(self, outputs: list[ir.Value]) -> None:
        """Cast results back to the types of the contract, under the contract's names."""
        for place, value in enumerate(outputs):
            wanted = HALF if value.name in self.half_boundary else FLOAT
            if value not in self.floats or value.dtype is wanted:
                continue
            name = value.name
            assert name is not None
            value.name = f"{name}.inner"
            cast = _cast_node(value, wanted, name)
            self.graph.append(cast)
            self.graph.outputs[place] = cast.outputs[0]


def _cast_node(value: ir.Value, wanted: ir.DataType, name: str) -> ir.Node:
    cast = ir.Node("", "Cast", [value], [ir.AttrInt64("to", wanted)], num_outputs=1, name=f"cast.{name}")
    cast.outputs[0].name, cast.outputs[0].shape = name, value.shape
    cast.outputs[0].type = ir.TensorType(wanted)
    return cast


def to_half(values: np.ndarray) -> np.ndarray:
    """fp16 values; what lies beyond its range becomes +-MASK_VALUE."""
    beyond = np.abs(values) > FP16_MAX
    return np.where(beyond, np.copysign(np.float32(MASK_VALUE), values), values).astype(np.float16)


def _attributes(node: ir.Node) -> Iterable[object]:
    return node.attributes.values()


def _is_graph(attribute: ir.Attr) -> bool:
    return attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
