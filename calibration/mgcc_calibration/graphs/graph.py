"""An ONNX graph with what calibration asks of it: its tensors by name, other weights, runs of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.passes.common import RemoveUnusedNodesPass

from mgcc_calibration.graphs.edit import Array, drop_unused_weights, name_of
from mgcc_calibration.graphs.storage import load_graph, save_graph, serialised, weight_bytes
from mgcc_runtime.engines.onnxruntime.cpu import cpu_settings

#: Protocol buffers end at 2 GB.
_PROTOBUF_BYTES = 1_500_000_000


@dataclass(frozen=True)
class Graph:
    """A graph with its weights in memory."""

    model: ir.Model

    @classmethod
    def load(cls, path: Path) -> Graph:
        return cls(ir.external_data.load_to_model(load_graph(path)))

    def copy(self) -> Graph:
        """Another graph, which shares the weights' values until one of both is given others."""
        return Graph(self.model.clone())

    @property
    def nodes(self) -> list[ir.Node]:
        """In topological order, as ONNX demands."""
        return list(self.model.graph)

    @property
    def weights(self) -> Mapping[str, ir.Value]:
        return self.model.graph.initializers

    @property
    def tensors(self) -> dict[str, ir.Value]:
        """Inputs, weights and results by name, as they are now."""
        graph = self.model.graph
        made = (value for node in graph for value in node.outputs)
        return {str(value.name): value for value in (*graph.inputs, *graph.initializers.values(), *made)}

    @property
    def outputs(self) -> list[str]:
        return [str(value.name) for value in self.model.graph.outputs]

    @property
    def opset(self) -> int:
        return self.model.graph.opset_imports[""]

    def node(self, name: str) -> ir.Node:
        return next(node for node in self.model.graph if name_of(node) == name)

    def weight(self, name: str) -> Array:
        tensor = self.weights[name].const_value
        assert tensor is not None, name
        return tensor.numpy()

    def set_weight(self, name: str, value: Array) -> None:
        """Give a weight other values; its element type is kept, and a scalar stays one."""
        dtype = self.weight(name).dtype
        self.weights[name].const_value = ir.tensor(np.asarray(value.astype(dtype), order="C"), name=name)

    def drop_unused_weights(self) -> None:
        drop_unused_weights(self.model.graph)

    def remove_unread(self) -> None:
        """Drop nodes and weights that no output of the graph depends on."""
        RemoveUnusedNodesPass()(self.model)

    def declare_domain(self, domain: str) -> None:
        """Say that operators of `domain` are used."""
        self.model.graph.opset_imports.setdefault(domain, 1)

    def session(self, extra: Sequence[str] = (), threads: int = 1) -> ort.InferenceSession:
        """The graph opened on the CPU, the tensors `extra` being outputs too (after the graph's own)."""
        model = self.model
        if extra:
            graph = self.copy()
            model, tensors, known = graph.model, graph.tensors, set(self.outputs)
            model.graph.outputs.extend(tensors[name] for name in extra if name not in known)
        settings = cpu_settings(threads)
        if weight_bytes(model) < _PROTOBUF_BYTES:
            return ort.InferenceSession(serialised(model), settings, providers=["CPUExecutionProvider"])
        with tempfile.TemporaryDirectory(prefix="mgcc-calibration-") as folder:
            path = save_graph(model, Path(folder) / "graph.onnx")[0]
            return ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def save(self, path: Path) -> Path:
        """Write the graph to `path`, the weights of a large one to PATH.data; the same graph gives the same bytes."""
        return save_graph(self.model, path)[0]
