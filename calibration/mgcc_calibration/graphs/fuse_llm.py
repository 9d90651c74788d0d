"""The language model's exported graph with ONNX Runtime's own kernels, and a cache that is written in place.

The exporter's graph copies the whole past at every call (a Concat for each key and value), repeats the keys and values
of each group of heads, and computes norms and rotations from small parts. Here each layer's attention becomes one
GroupQueryAttention, which rotates, appends and attends; keys and values live in buffers of fixed capacity that the
runtime gives as past and present alike, so nothing is copied. One input more than the contract's says how much of the
buffers counts (`mgcc_runtime.engines.onnxruntime.shared_cache`).

What is found is found by structure, not by names, and a graph of another structure is refused. Linear layers may
already hold packed weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter.ort_fusions.rms_normalization import fuse_rms_normalization
from onnxscript.rewriter.ort_fusions.skip_normalization import fuse_skip_rms_normalization

from mgcc_calibration.errors import FusionError
from mgcc_calibration.graphs.edit import Array, add_weight, make_node, replace_value
from mgcc_calibration.graphs.graph import Graph
from mgcc_calibration.graphs.last_position import last_position_first
from mgcc_calibration.graphs.merge_linear import is_linear, linear_width, merge_linear
from mgcc_runtime.contract import PAST_LENGTH, past_names, present_names
from mgcc_runtime.names import CACHE_PREFIXES, PAST_PREFIX

DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class _Attention:
    """One layer's attention in the exported graph."""

    layer: int
    query: ir.Node  # the projections
    key: ir.Node
    value: ir.Node
    joined: ir.Value  # the heads' results side by side (1, S, H * d), before the output projection
    cos: ir.Value  # (S, d)
    sin: ir.Value


def fuse_language_model(source: Graph, context: int) -> Graph:
    """A new graph of the `llm` stage with a cache of `context` positions; FusionError if its structure is another."""
    graph = source.copy()
    caches = [value for value in graph.model.graph.inputs if str(value.name).startswith(PAST_PREFIX)]
    layers = len(caches) // 2
    if not layers:
        raise FusionError("the graph has no cache inputs, expected those of a language model; leave it as it is")
    # while all shapes are stated, by which a residual addition is known
    _fuse_norms(graph)
    kv_heads, head_dim = (_lengths(caches[0], context)[axis] for axis in (1, 3))
    tensors = graph.tensors
    found = [_attention(tensors, layer) for layer in range(layers)]
    tables = [
        add_weight(graph.model.graph, name, table)
        for name, table in zip(("cos_table", "sin_table"), _rotary_tables(graph, found[0], context), strict=True)
    ]
    lengths = _add_lengths(graph, tensors["inputs_embeds"])
    for attention in found:
        past, present = ([tensors[n] for n in names(attention.layer + 1)[-2:]] for names in (past_names, present_names))
        projections = [node.outputs[0] for node in (attention.query, attention.key, attention.value)]
        fused = make_node(
            "GroupQueryAttention", [*projections, *past, *lengths, *tables],
            [str(value.name) for value in (attention.joined, *present)], f"attention_{attention.layer}", DOMAIN,
            do_rotary=1, kv_num_heads=kv_heads, num_heads=linear_width(attention.query) // head_dim,
        )  # fmt: skip
        graph.model.graph.insert_before(_producer(attention.joined), fused)
        for old, new in zip((attention.joined, *present), fused.outputs, strict=True):
            replace_value(old, new)
    _declare_buffers(graph, context)
    graph.remove_unread()
    last_position_first(graph)
    graph.remove_unread()
    merge_linear(graph)
    graph.declare_domain(DOMAIN)
    return graph


def _fuse_norms(graph: Graph) -> None:
    """RMS norms become one node each, with the residual addition before them where there is one."""
    fuse_rms_normalization(graph.model)
    fuse_skip_rms_normalization(graph.model)
    for node in graph.nodes:
        if node.op_type == "SkipSimplifiedLayerNormalization":
            for statistics in node.outputs[1:3]:  # of training
                statistics.name = ""


def _attention(tensors: Mapping[str, ir.Value], layer: int) -> _Attention:
    key_name, value_name = present_names(layer + 1)[-2:]
    new: dict[str, ir.Value] = {}
    for name, past in zip((key_name, value_name), past_names(layer + 1)[-2:], strict=True):
        node = tensors[name].producer() if name in tensors else None
        if node is None or node.op_type != "Concat" or node.inputs[0] is not tensors[past]:
            raise FusionError(f"{name} is not {past} with new positions behind it; leave this graph as it is")
        new[name] = _input(node, 1)
    rotated = _producer(new[key_name])
    if rotated.op_type != "Add":
        raise FusionError(f"the keys of layer {layer} are not rotated, expected a Llama's; leave this graph as it is")
    products = [_producer(_input(rotated, place)) for place in (0, 1)]
    turned = [_producer(_input(node, 0)).op_type == "Concat" for node in products]  # rotate_half
    if sorted(turned) != [False, True] or any(node.op_type != "Mul" for node in products):
        raise FusionError(f"the rotation of layer {layer} is of another form; leave this graph as it is")
    straight, half = (products[turned.index(which)] for which in (False, True))
    softmax = _nearest(tensors[key_name], lambda node: node.op_type == "Softmax", forward=True)
    scores = _nearest(_input(softmax, 0), lambda node: node.op_type == "MatMul", forward=False)
    turned_back = _nearest(softmax.outputs[0], lambda node: node.op_type == "Transpose", forward=True)
    joined = _nearest(turned_back.outputs[0], lambda node: node.op_type == "Reshape", forward=True)
    query, key, value = (
        _nearest(tensor, is_linear, forward=False) for tensor in (_input(scores, 0), new[key_name], new[value_name])
    )
    return _Attention(layer, query, key, value, joined.outputs[0], _input(straight, 1), _input(half, 1))


def _nearest(tensor: ir.Value, wanted: Callable[[ir.Node], bool], *, forward: bool) -> ir.Node:
    """The first node of a kind on the ways from `tensor`, breadth first; FusionError if there is none."""
    values, seen = [tensor], {tensor}
    while values:
        nodes: Iterable[ir.Node] = (
            [node for value in values for node in value.consumers()]
            if forward
            else [node for value in values if (node := value.producer()) is not None]
        )
        values = []
        for node in nodes:
            if wanted(node):
                return node
            for value in node.outputs if forward else node.inputs:
                if value is not None and value not in seen:
                    seen.add(value)
                    values.append(value)
    raise _unknown(tensor)


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    if node is None:
        raise _unknown(value)
    return node


def _input(node: ir.Node, place: int) -> ir.Value:
    value = node.inputs[place] if len(node.inputs) > place else None
    if value is None:
        raise _unknown(node.outputs[0])
    return value


def _unknown(value: ir.Value) -> FusionError:
    return FusionError(f"no attention of the known form around {value.name}; leave this graph as it is")


def _lengths(value: ir.Value, context: int) -> list[int]:
    """Of each axis of an input; of new positions as many as the cache holds, of past ones none."""
    axes = value.shape if value.shape is not None else ()
    return [axis if isinstance(axis, int) else context if axis.value == "S" else 0 for axis in axes]


def _rotary_tables(graph: Graph, attention: _Attention, context: int) -> tuple[Array, Array]:
    """cos and sin (context, d / 2) of the rotary embedding, computed by the graph itself for an empty cache."""
    part = graph.copy()
    tensors, outputs = part.tensors, part.model.graph.outputs
    outputs.clear()
    outputs.extend(tensors[str(value.name)] for value in (attention.cos, attention.sin))
    part.remove_unread()
    session = part.session()
    needed = {i.name for i in session.get_inputs()}
    inputs = (value for value in part.model.graph.inputs if value.name in needed)
    cos, sin = session.run(None, {value.name: np.zeros(_lengths(value, context), np.float32) for value in inputs})
    half = cos.shape[-1] // 2
    return np.ascontiguousarray(cos[:, :half]), np.ascontiguousarray(sin[:, :half])


def _add_lengths(graph: Graph, embeddings: ir.Value) -> tuple[ir.Value, ir.Value]:
    """The input PAST_LENGTH; what GroupQueryAttention takes of it: T - 1 and T as int32."""
    past = ir.Value(name=PAST_LENGTH, shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
    one = add_weight(graph.model.graph, "one_int32", np.array([1], np.int32))
    first = graph.nodes[0]
    new = make_node("Shape", [embeddings], ["new_length"], end=2, start=1)
    total = make_node("Add", [past, new.outputs[0]], ["total_length_int64"])
    cast = make_node("Cast", total.outputs, ["total_length"], to=int(ir.DataType.INT32))
    last = make_node("Sub", [cast.outputs[0], one], ["last_index"])
    graph.model.graph.inputs.append(past)
    graph.model.graph.insert_before(first, [new, total, cast, last])
    return last.outputs[0], cast.outputs[0]


def _declare_buffers(graph: Graph, context: int) -> None:
    """Cache inputs and outputs with the buffers' capacity as their length; within the graph no lengths are stated."""
    ends = (*graph.model.graph.inputs, *graph.model.graph.outputs)
    for value in ends:
        if str(value.name).startswith(CACHE_PREFIXES) and value.shape is not None:
            value.shape = ir.Shape([*value.shape[:2], context, *value.shape[3:]])
    for value in (value for node in graph.nodes for value in node.outputs if value not in ends):
        value.shape = value.type = None
