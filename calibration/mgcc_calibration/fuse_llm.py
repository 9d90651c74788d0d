"""The language model's exported graph with ONNX Runtime's own kernels, and a cache that is written in place.

The exporter's graph copies the whole past at every call (a Concat for each key and value), repeats the keys and values
of each group of heads, and computes norms and rotations from small parts. Here each layer's attention becomes one
GroupQueryAttention, which rotates, appends and attends; keys and values live in buffers of fixed capacity that the
runtime gives as past and present alike, so nothing is copied. One input more than the contract's says how much of the
buffers counts (`mgcc_runtime.engines.shared_cache`).

What is found is found by structure, not by names, and a graph of another structure is refused. Linear layers may
already hold packed weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from onnx import NodeProto, TensorProto, helper, numpy_helper

from mgcc_calibration.errors import FusionError
from mgcc_calibration.fuse_norms import fuse_norms, last_position_first
from mgcc_calibration.graph import Array, Graph
from mgcc_calibration.merge_linear import is_linear, linear_width, merge_linear
from mgcc_runtime.contract import PAST_LENGTH, past_names, present_names
from mgcc_runtime.engines.onnxruntime import cpu_settings
from mgcc_runtime.names import CACHE_PREFIXES, PAST_PREFIX

DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class _Attention:
    """One layer's attention in the exported graph."""

    layer: int
    query: NodeProto  # the projections
    key: NodeProto
    value: NodeProto
    joined: str  # the heads' results side by side (1, S, H * d), before the output projection
    cos: str  # (S, d)
    sin: str


def fuse_language_model(source: Graph, context: int) -> Graph:
    """A new graph of the `llm` stage with a cache of `context` positions; FusionError if its structure is another."""
    graph = source.copy()
    caches = [i for i in graph.model.graph.input if i.name.startswith(PAST_PREFIX)]
    layers = len(caches) // 2
    if not layers:
        raise FusionError("the graph has no cache inputs, expected those of a language model; leave it as it is")
    kv_heads, head_dim = (caches[0].type.tensor_type.shape.dim[axis].dim_value for axis in (1, 3))
    found = [_attention(graph, layer) for layer in range(layers)]
    tables = _rotary_tables(graph, found[0], context)
    for name, table in zip(("cos_table", "sin_table"), tables, strict=True):
        graph.model.graph.initializer.append(numpy_helper.from_array(table, name))
    _add_lengths(graph)
    for attention in found:
        _replace_attention(graph, attention, kv_heads, head_dim)
    _declare_buffers(graph, context)
    graph.remove_unread()
    fuse_norms(graph)
    graph.remove_unread()
    last_position_first(graph)
    graph.remove_unread()
    merge_linear(graph)
    graph.declare_domain(DOMAIN)
    return graph


def _attention(graph: Graph, layer: int) -> _Attention:
    key_name, value_name = present_names(layer + 1)[-2:]
    new = {}
    for name, past in zip((key_name, value_name), past_names(layer + 1)[-2:], strict=True):
        node = graph.producer.get(name)
        if node is None or node.op_type != "Concat" or node.input[0] != past:
            raise FusionError(f"{name} is not {past} with new positions behind it; leave this graph as it is")
        new[name] = node.input[1]
    rotated = graph.producer[new[key_name]]
    if rotated.op_type != "Add":
        raise FusionError(f"the keys of layer {layer} are not rotated, expected a Llama's; leave this graph as it is")
    products = [graph.producer[name] for name in rotated.input]
    turned = [graph.producer[node.input[0]].op_type == "Concat" for node in products]  # rotate_half
    if sorted(turned) != [False, True] or any(node.op_type != "Mul" for node in products):
        raise FusionError(f"the rotation of layer {layer} is of another form; leave this graph as it is")
    straight, half = (products[turned.index(which)] for which in (False, True))
    softmax = _nearest(graph, key_name, lambda node: node.op_type == "Softmax", forward=True)
    scores = _nearest(graph, softmax.input[0], lambda node: node.op_type == "MatMul", forward=False)
    turned_back = _nearest(graph, softmax.output[0], lambda node: node.op_type == "Transpose", forward=True)
    joined = _nearest(graph, turned_back.output[0], lambda node: node.op_type == "Reshape", forward=True)
    query, key, value = (
        _nearest(graph, name, lambda node: is_linear(graph, node), forward=False)
        for name in (scores.input[0], new[key_name], new[value_name])
    )
    return _Attention(layer, query, key, value, joined.output[0], straight.input[1], half.input[1])


def _nearest(graph: Graph, tensor: str, wanted: Callable[[NodeProto], bool], *, forward: bool) -> NodeProto:
    """The first node of a kind on the ways from `tensor`, breadth first; FusionError if there is none."""
    names, seen = [tensor], {tensor}
    while names:
        nodes: Iterable[NodeProto] = (
            [node for name in names for node in graph.consumers.get(name, [])]
            if forward
            else [graph.producer[name] for name in names if name in graph.producer]
        )
        names = []
        for node in nodes:
            if wanted(node):
                return node
            for name in node.output if forward else node.input:
                if name not in seen:
                    seen.add(name)
                    names.append(name)
    raise FusionError(f"no attention of the known form around {tensor}; leave this graph as it is")


def _rotary_tables(graph: Graph, attention: _Attention, context: int) -> tuple[Array, Array]:
    """cos and sin (context, d / 2) of the rotary embedding, computed by the graph itself for an empty cache."""
    part = graph.copy()
    del part.model.graph.output[:]
    part.model.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in (attention.cos, attention.sin)
    )
    part.remove_unread()
    feeds = {}
    for value in part.model.graph.input:
        sizes = [d.dim_value or (context if d.dim_param == "S" else 0) for d in value.type.tensor_type.shape.dim]
        feeds[value.name] = np.zeros(sizes, np.float32)
    session = ort.InferenceSession(part.model.SerializeToString(), cpu_settings(), providers=["CPUExecutionProvider"])
    needed = {i.name for i in session.get_inputs()}
    cos, sin = session.run(None, {name: array for name, array in feeds.items() if name in needed})
    half = cos.shape[-1] // 2
    return np.ascontiguousarray(cos[:, :half]), np.ascontiguousarray(sin[:, :half])


def _add_lengths(graph: Graph) -> None:
    """The input PAST_LENGTH, and what GroupQueryAttention takes: T as int32, and T - 1."""
    proto = graph.model.graph
    proto.input.append(helper.make_tensor_value_info(PAST_LENGTH, TensorProto.INT64, [1]))
    proto.initializer.append(numpy_helper.from_array(np.array([1], np.int32), "one_int32"))
    nodes = [
        helper.make_node("Shape", ["inputs_embeds"], ["new_length"], start=1, end=2),
        helper.make_node("Add", [PAST_LENGTH, "new_length"], ["total_length_int64"]),
        helper.make_node("Cast", ["total_length_int64"], ["total_length"], to=TensorProto.INT32),
        helper.make_node("Sub", ["total_length", "one_int32"], ["last_index"]),
    ]
    for place, node in enumerate(nodes):
        proto.node.insert(place, node)


def _replace_attention(graph: Graph, attention: _Attention, kv_heads: int, head_dim: int) -> None:
    past, present = (names(attention.layer + 1)[-2:] for names in (past_names, present_names))
    width = linear_width(graph, attention.query)
    node = helper.make_node(
        "GroupQueryAttention",
        [
            *(n.output[0] for n in (attention.query, attention.key, attention.value)), *past, "last_index",
            "total_length", "cos_table", "sin_table",
        ],
        [attention.joined, *present], name=f"attention_{attention.layer}", domain=DOMAIN, num_heads=width // head_dim,
        kv_num_heads=kv_heads, do_rotary=1,
    )  # fmt: skip
    old = {id(graph.producer[name]) for name in (attention.joined, *present)}
    place = next(i for i, n in enumerate(graph.nodes) if n.output and n.output[0] == attention.joined)
    kept = [n for n in graph.nodes[:place] if id(n) not in old]
    rest = list(graph.nodes[place + 1 :])
    graph.replace_nodes([*kept, node, *rest])


def _declare_buffers(graph: Graph, context: int) -> None:
    """Cache inputs and outputs with the buffers' capacity as their length."""
    for value in (*graph.model.graph.input, *graph.model.graph.output):
        if value.name.startswith(CACHE_PREFIXES):
            value.type.tensor_type.shape.dim[2].dim_value = context
    del graph.model.graph.value_info[:]
