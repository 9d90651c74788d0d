"""Small fp32 graphs for the tests of lower precision, made with onnx alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 128


def save(path: Path, nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], shape=(1, "S", WIDTH)) -> Path:
    """One graph x -> y of these nodes, types inferred as the exporter does it."""
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, list(shape)) for n in ("x", "y")]
    initial = [numpy_helper.from_array(w, n) for n, w in weights.items()]
    graph = helper.make_graph(nodes, "small", [values[0]], [values[1]], initializer=initial)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model, strict_mode=True), path)
    return path


def perceptron(path: Path, scale: float = 0.1) -> Path:
    """LayerNormalization, MatMul, Sigmoid, Gemm-free second MatMul; weights of `scale`."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("LayerNormalization", ["x", "gain", "shift"], ["normed"], "norm"),
        helper.make_node("MatMul", ["normed", "a"], ["wide"], "first"),
        helper.make_node("Sigmoid", ["wide"], ["gate"], "act"),
        helper.make_node("Mul", ["wide", "gate"], ["hidden"], "gated"),
        helper.make_node("MatMul", ["hidden", "b"], ["y"], "second"),
    ]
    weights = {
        "gain": np.ones(WIDTH, np.float32),
        "shift": np.zeros(WIDTH, np.float32),
        "a": rng.normal(0, scale, (WIDTH, 2 * WIDTH)).astype(np.float32),
        "b": rng.normal(0, scale, (2 * WIDTH, WIDTH)).astype(np.float32),
    }
    return save(path, nodes, weights)


def overflowing(path: Path) -> Path:
    """x * 100, squared by Mul of two names, back by a root-like division: 1e6 in the middle, x * 100 at the end."""
    nodes = [
        helper.make_node("Mul", ["x", "hundred"], ["large"], "enlarge"),
        helper.make_node("Mul", ["large", "thousand"], ["larger"], "beyond"),
        helper.make_node("Div", ["larger", "thousand"], ["y"], "back"),
    ]
    return save(path, nodes, {"hundred": np.float32(100).reshape(1), "thousand": np.float32(1000).reshape(1)})


def masked_softmax(path: Path) -> Path:
    """Softmax of scores with a mask of -3.4e38 on the last position, as torch's exporter writes it."""
    mask = np.zeros(WIDTH, np.float32)
    mask[-1] = np.finfo(np.float32).min
    nodes = [
        helper.make_node("Add", ["x", "mask"], ["scores"], "add"),
        helper.make_node("Softmax", ["scores"], ["y"], "softmax", axis=-1),
    ]
    return save(path, nodes, {"mask": mask})


def run(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime as ort

    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    result: np.ndarray = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    return result


def emulated(path: Path, feeds: dict[str, np.ndarray]) -> np.ndarray:
    """The same with every fp16 result rounded on the spot."""
    from mgcc_export.precision.emulate_fp16 import write_emulated

    target = path.with_name(f"{path.stem}-emulated.onnx")
    write_emulated(path, target)
    return run(target, feeds)


def operators(path: Path) -> dict[str, onnx.NodeProto]:
    return {n.name: n for n in onnx.load(path).graph.node}


def types(path: Path) -> dict[str, int]:
    """Element type of every value that has one written down."""
    graph = onnx.load(path).graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
    return found | {w.name: w.data_type for w in graph.initializer}


def noise(length: int = 5, scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(1).normal(0, scale, (1, length, WIDTH)).astype(np.float32)


def shared_projections(path: Path) -> Path:
    """Two rounds of the same three matrices, each three of one input: what a query, a key and a value are made with."""
    rng = np.random.default_rng(0)
    weights = {n: rng.normal(0, 0.1, (WIDTH, WIDTH)).astype(np.float32) for n in ("query", "key", "value", "own")}
    nodes = []
    for number, source in enumerate(("x", "round0")):
        nodes += [helper.make_node("MatMul", [source, n], [f"{n}{number}"], f"{n}{number}") for n in list(weights)[:3]]
        nodes += [
            helper.make_node("Mul", [f"query{number}", f"key{number}"], [f"scores{number}"], f"scores{number}"),
            helper.make_node("Add", [f"scores{number}", f"value{number}"], [f"round{number}"], f"round{number}"),
        ]
    nodes.append(helper.make_node("MatMul", ["round1", "own"], ["y"], "last"))
    return save(path, nodes, weights)
