"""A small language model's graph whose cache is written in place: real attention, by ONNX Runtime's own operator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from mgcc_runtime.bundle import folder as b
from mgcc_runtime.contract import PAST_LENGTH, Dimensions, stage
from tests.runtime.tiny_bundle import DIMENSIONS, Graph, make_bundle, seal

CAPACITY = DIMENSIONS.context


def make_in_place(d: Dimensions = DIMENSIONS, seed: int = 7, capacity: int = CAPACITY) -> onnx.ModelProto:
    """The stage `llm` with attention over buffers of `capacity` positions."""
    g = Graph(np.random.default_rng(seed))
    new = g.op("Shape", "inputs_embeds", start=1, end=2)
    total = g.op("Cast", g.op("Add", PAST_LENGTH, new), to=TensorProto.INT32)
    last = g.op("Sub", total, g.const([1], np.int32))
    x, inner = "inputs_embeds", d.kv_heads * d.head_dim
    for i in range(d.layers):
        parts = [g.linear(x, d.hidden, inner) for _ in range(3)]
        past = [f"past_key_values.{i}.{part}" for part in ("key", "value")]
        present = [f"present.{i}.{part}" for part in ("key", "value")]
        mixed = f"mixed{i}"
        g.nodes.append(
            helper.make_node(
                "GroupQueryAttention", [*parts, *past, last, total], [mixed, *present], domain="com.microsoft",
                num_heads=d.kv_heads, kv_num_heads=d.kv_heads,
            )
        )  # fmt: skip
        x = g.op("Tanh", g.op("Add", x, g.linear(mixed, inner, d.hidden)))
    g.op("Identity", x, out="hidden_states")
    end = g.op("Slice", x, g.ints(-1), g.ints(2**62), g.ints(1))
    g.op("MatMul", end, g.const(g.rng.normal(0, 1, (d.hidden, d.vocabulary))), out="logits")
    return _assembled(g, d, capacity)


def _assembled(g: Graph, d: Dimensions, capacity: int) -> onnx.ModelProto:
    spec = stage(d, "llm")

    def shape(name: str, axes: tuple[int | str, ...]) -> list[int | str]:
        return [1, d.kv_heads, capacity, d.head_dim] if "." in name else list(axes)

    values = [
        [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, shape(t.name, t.shape)) for t in tensors]
        for tensors in (spec.inputs, spec.outputs)
    ]
    values[0].append(helper.make_tensor_value_info(PAST_LENGTH, TensorProto.INT64, [1]))
    graph = helper.make_graph(g.nodes, "llm", *values, initializer=g.constants)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def make_two_graph_bundle(root: Path, llm: onnx.ModelProto | None, decode: onnx.ModelProto | None) -> Path:
    """A whole bundle with these graphs of the language model; None: the usual one, and no second one."""
    make_bundle(root)
    manifest = b.read_manifest(root)
    if llm is not None:
        onnx.save(llm, root / "llm.onnx")
    if decode is not None:
        onnx.save(decode, root / "llm_decode.onnx")
        entry = replace(manifest.stages["llm"], decode=b.GraphEntry("llm_decode.onnx", "onnxruntime", "fp32"))
        manifest = replace(manifest, stages={**manifest.stages, "llm": entry})
    return seal(root, manifest)
