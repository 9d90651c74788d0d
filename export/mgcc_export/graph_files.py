"""ONNX files of any size: one file for a small stage, else a second one with the weights."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from mgcc_runtime.names import weights_file

#: Weights above this go to a file of their own beside the graph, which engines map; those in the graph they parse and
#: copy first. (Protocol buffers end at 2 GB.)
EXTERNAL_DATA_BYTES = 64_000_000


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
