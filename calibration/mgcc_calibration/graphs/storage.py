"""ONNX files of any size: one for a small graph; else a second one with its weights, which two graphs may share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir

from mgcc_runtime.bundle.folder import Bundle, sha256_of
from mgcc_runtime.names import EXTERNAL_DATA_BYTES, weights_file


def load_graph(path: Path) -> ir.Model:
    """Read a graph; weights in a file of their own are mapped into memory, not read."""
    return ir.load(path)


def save_graph(model: ir.Model, path: Path, external_data_bytes: int | None = None) -> tuple[Path, ...]:
    """Write a graph; returns its file, and that of its weights if they are above `external_data_bytes`.

    None stands for EXTERNAL_DATA_BYTES. Weights that are mapped from a file stay in one, whatever their size: written
    into the graph they would go on naming the old file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    limit = EXTERNAL_DATA_BYTES if external_data_bytes is None else external_data_bytes
    mapped = any(isinstance(v.const_value, ir.ExternalTensor) for v in model.graph.initializers.values())
    if weight_bytes(model) <= limit and not mapped:
        ir.save(model, path)
        return (path,)
    weights = path.with_name(weights_file(path.name))
    ir.save(model, path, external_data=weights.name)
    if not weights.stat().st_size:  # all of them are so small that they stay in the graph
        weights.unlink()
        return (path,)
    return path, weights


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all weights as they are stored: 4-bit ones count half a byte."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def location(weight: ir.Value) -> str | None:
    """Name of the file that a weight lies in; None for one in the graph's own."""
    tensor = weight.const_value
    return os.fspath(tensor.location) if isinstance(tensor, ir.ExternalTensor) else None


def move_weight(weight: ir.Value, name: str, offset: int, length: int) -> None:
    """Have a weight lie at a place in the file called `name`, beside the graph; its bytes are to be the same there."""
    tensor = weight.const_value
    assert tensor is not None and weight.name is not None
    weight.const_value = ir.ExternalTensor(
        name, offset, length, tensor.dtype, shape=ir.Shape(tensor.shape.numpy()), name=weight.name
    )


def serialised(model: ir.Model) -> bytes:
    """What the graph's own file holds; the same graph gives the same bytes."""
    found: bytes = ir.to_proto(model).SerializeToString(deterministic=True)
    return found


def files_of(path: Path) -> tuple[Path, ...]:
    """A graph's file, then those that its weights lie in: its own, or one that it shares with another graph."""
    names = {location(weight) for weight in load_graph(path).graph.initializers.values()} - {None}
    return path, *(path.with_name(name) for name in sorted(filter(None, names)))


def with_weights_in(path: Path, names: Mapping[str, str]) -> bytes:
    """The graph at `path`, to be written where its weights lie in files of other names (old -> new)."""
    model = load_graph(path)
    for weight in model.graph.initializers.values():
        tensor = weight.const_value
        if isinstance(tensor, ir.ExternalTensor) and (name := names.get(os.fspath(tensor.location))):
            move_weight(weight, name, tensor.offset or 0, tensor.length or tensor.nbytes)
    return serialised(model)


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
