"""An ONNX graph with what calibration asks of it: weights by name, who makes and who reads a tensor, runs of it."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, external_data_helper, helper, numpy_helper

from mgcc_runtime.bundle import Bundle, sha256_of
from mgcc_runtime.engines.onnxruntime import cpu_settings
from mgcc_runtime.names import weights_file

Array = NDArray[Any]

#: Protocol buffers end at 2 GB.
_PROTOBUF_BYTES = 1_500_000_000
#: Larger graphs keep their weights in a file beside them, which the engine maps: what lies in the graph it parses and
#: copies first. The story's language model (140 MB in dynamic int8) opened in 0.3 s instead of 1.1, with 40 MB less.
EXTERNAL_DATA_BYTES = 64_000_000
_EXTERNAL_TENSOR_BYTES = 1024  # of one weight; smaller ones stay in the graph


@dataclass
class Graph:
    """A loaded graph. After a change to its nodes or weights, `refresh` brings the tables up to date."""

    model: ModelProto
    weights: dict[str, TensorProto] = field(init=False)
    producer: dict[str, NodeProto] = field(init=False)
    consumers: dict[str, list[NodeProto]] = field(init=False)

    def __post_init__(self) -> None:
        self.refresh()

    @classmethod
    def load(cls, path: Path) -> Graph:
        return cls(onnx.load(path))

    def copy(self) -> Graph:
        model = ModelProto()
        model.CopyFrom(self.model)
        return Graph(model)

    def refresh(self) -> None:
        self.weights = {w.name: w for w in self.model.graph.initializer}
        self.producer = {out: node for node in self.nodes for out in node.output if out}
        self.consumers = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.consumers.setdefault(name, []).append(node)

    @property
    def nodes(self) -> Sequence[NodeProto]:
        return self.model.graph.node

    @property
    def outputs(self) -> list[str]:
        return [o.name for o in self.model.graph.output]

    @property
    def opset(self) -> int:
        return next(o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx"))

    def weight(self, name: str) -> Array:
        return numpy_helper.to_array(self.weights[name])

    def set_weight(self, name: str, value: Array) -> None:
        """Replace a weight's values in place, its element type kept, and a scalar a scalar."""
        old = self.weights[name]
        dtype = helper.tensor_dtype_to_np_dtype(old.data_type)
        old.CopyFrom(numpy_helper.from_array(np.asarray(value.astype(dtype), order="C"), name))

    def drop_unused_weights(self) -> None:
        used = {name for node in self.nodes for name in node.input} | set(self.outputs)
        kept = [w for w in self.model.graph.initializer if w.name in used]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(kept)
        self.refresh()

    def replace_nodes(self, nodes: Iterable[NodeProto]) -> None:
        """Other nodes, in topological order."""
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del self.model.graph.node[:]
        self.model.graph.node.extend(kept)
        self.refresh()

    def remove_unread(self) -> None:
        """Drop nodes and weights that no output of the graph depends on."""
        needed, kept = set(self.outputs), []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        self.replace_nodes(reversed(kept))
        self.drop_unused_weights()

    def declare_domain(self, domain: str) -> None:
        """Say that operators of `domain` are used."""
        if not any(o.domain == domain for o in self.model.opset_import):
            self.model.opset_import.append(helper.make_opsetid(domain, 1))

    def session(self, extra: Sequence[str] = (), threads: int = 1) -> ort.InferenceSession:
        """The graph opened on the CPU, the tensors `extra` being outputs too (after the graph's own)."""
        model = self.model
        if extra:
            model = ModelProto()
            model.CopyFrom(self.model)
            known = set(self.outputs)
            model.graph.output.extend(ValueInfoProto(name=name) for name in extra if name not in known)
        settings = cpu_settings(threads)
        if model.ByteSize() < _PROTOBUF_BYTES:
            return ort.InferenceSession(model.SerializeToString(), settings, providers=["CPUExecutionProvider"])
        with tempfile.TemporaryDirectory(prefix="mgcc-calibration-") as folder:
            path = Path(folder) / "graph.onnx"
            onnx.save_model(model, path, save_as_external_data=True, location=weights_file(path.name))
            return ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])

    def save(self, path: Path) -> Path:
        """Write the graph to `path`, the weights of a large one to PATH.data; the same graph gives the same bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.model.ByteSize() < EXTERNAL_DATA_BYTES:
            path.write_bytes(self.model.SerializeToString(deterministic=True))
            return path
        data = path.with_name(weights_file(path.name))
        data.unlink(missing_ok=True)  # onnx appends to a file that is there
        external_data_helper.convert_model_to_external_data(
            self.model, location=data.name, size_threshold=_EXTERNAL_TENSOR_BYTES
        )
        external_data_helper.write_external_data_tensors(self.model, str(path.parent))
        path.write_bytes(self.model.SerializeToString(deterministic=True))
        external_data_helper.load_external_data_for_model(self.model, str(path.parent))  # writing took them away
        for weight in self.model.graph.initializer:
            weight.ClearField("data_location")
        return path


def files_of(path: Path) -> tuple[Path, ...]:
    """A graph's file, then those that its weights lie in: its own, or one that it shares with another graph."""
    tensors = onnx.load(path, load_external_data=False).graph.initializer
    names = {e.value for t in tensors for e in t.external_data if e.key == "location"}
    return path, *(path.with_name(name) for name in sorted(names))


def digest_of(path: Path, known: Mapping[str, str] | None = None) -> str:
    """SHA-256 of a graph and of the weights beside it, which can change while the graph's own file does not.

    `known` gives the hashes of files by name, where somebody has taken them before.
    """
    digests = [known[file.name] if known else sha256_of(file) for file in files_of(path)]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def graph_digests(bundle: Bundle) -> dict[str, str]:
    """Of each stage's graph in a bundle, by the hashes in its manifest."""
    known = {name: entry.sha256 for name, entry in bundle.manifest.files.items()}
    return {name: digest_of(bundle.file(entry.file), known) for name, entry in bundle.manifest.stages.items()}


def copy_renamed(path: Path, target: Path, weights: Mapping[str, str]) -> None:
    """Write the graph at `path` to `target`, which will find its weights in files of other names (old -> new)."""
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = weights.get(entry.value, entry.value)
    target.write_bytes(model.SerializeToString(deterministic=True))


def constant_value(graph: Graph, name: str) -> Array | None:
    """The values of a weight or of a Constant node; None for a tensor that depends on the inputs."""
    if name in graph.weights:
        return graph.weight(name)
    node = graph.producer.get(name)
    if node is not None and node.op_type == "Constant":
        return next((numpy_helper.to_array(a.t) for a in node.attribute if a.name == "value"), None)
    return None
