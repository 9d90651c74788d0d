"""Two graphs of a bundle that hold the same weights, as the UNet with and without its gates do: one file for both.

ONNX lets a weight lie in any file beside its graph. Stages stay whole in the cache, each under a key of its own; they
come to share when a bundle is put together. TensorRT's engines cannot: a plan holds its weights in itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx_ir as ir

from mgcc_calibration.graphs.storage import load_graph, location, move_weight, serialised
from mgcc_runtime.bundle.folder import sha256_of
from mgcc_runtime.names import weights_file

#: Smaller weights, which most often are shapes and scales, stay in the graph.
LEAST_BYTES = 1024
#: Of each weight in a file that is written here: what vector loads and the GPU's copies like.
ALIGNMENT = 64
#: Metadata of a graph: which files its weights lie in, with their SHA-256. So the hash of a graph, by which engines and
#: calibration data know it, covers its weights though they are elsewhere.
WEIGHTS_KEY = "mgcc.weights"

_Place = tuple[int, int]  # offset and length in owner's file


def share_weights(owner: Path, reader: Path) -> int:
    """Have the graph `reader` take the weights that `owner` holds too from owner's file, OWNER.onnx.data.

    Both lie in one folder. Weights are the same where their bytes are; no value changes. What else `reader` keeps
    outside of its graph is in READER.onnx.data, which goes if nothing is left of it. Files are replaced, not written
    into: they may be hard links. Returns how many bytes no longer lie there twice; 0: nothing was touched.
    """
    folder, data = owner.parent, _data_of(owner)
    first, second = load_graph(owner), load_graph(reader)
    held = {_digest(weight, folder): weight for weight in _large(first)}
    known = [(weight, _digest(weight, folder)) for weight in _large(second)]
    common = [(weight, digest) for weight, digest in known if digest in held]
    saved = sum(_tensor(weight).nbytes for weight, digest in common if not _same_file(weight, held[digest]))
    if not saved:
        return 0
    # the reader's first: what it alone holds may lie in the file that the owner's are about to replace
    own = [weight for weight, digest in known if digest not in held and location(weight) is not None]
    _write_out(own, folder, _data_of(reader))
    if {location(weight) for weight in _large(first)} != {data.name}:
        _write_out(list(_large(first)), folder, data)
    for weight, digest in common:
        move_weight(weight, data.name, *_place(_tensor(held[digest])))
    for model, path in ((first, owner), (second, reader)):
        _save(model, path)
    return saved


def _data_of(graph: Path) -> Path:
    return graph.with_name(weights_file(graph.name))


def _large(model: ir.Model) -> Iterator[ir.Value]:
    """The weights that are worth a place in a file."""
    for weight in model.graph.initializers.values():
        if location(weight) is not None or _tensor(weight).nbytes >= LEAST_BYTES:
            yield weight


def _tensor(weight: ir.Value) -> ir.TensorProtocol:
    assert weight.const_value is not None
    return weight.const_value


def _place(tensor: ir.TensorProtocol) -> _Place:
    assert isinstance(tensor, ir.ExternalTensor)
    return tensor.offset or 0, tensor.length or 0


def _content(weight: ir.Value, folder: Path) -> bytes:
    """The weight as it is stored: read, not mapped, since its file may be replaced."""
    name, tensor = location(weight), _tensor(weight)
    if name is None:
        return tensor.tobytes()
    offset, length = _place(tensor)
    with (folder / name).open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _digest(weight: ir.Value, folder: Path) -> bytes:
    return hashlib.sha256(_content(weight, folder)).digest()


def _same_file(one: ir.Value, other: ir.Value) -> bool:
    return location(one) is not None and location(one) == location(other)


def _write_out(weights: Sequence[ir.Value], folder: Path, target: Path) -> None:
    """Write weights, one in memory at a time, to a new file `target`, which may be one that they come from.

    No weights: no file.
    """
    if not weights:
        target.unlink(missing_ok=True)
        return
    partial, places = target.with_name(f".{target.name}.partial"), list[_Place]()
    with partial.open("wb") as file:
        for weight in weights:
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            content = _content(weight, folder)
            places.append((file.tell(), len(content)))
            file.write(content)
    os.replace(partial, target)
    for weight, (offset, length) in zip(weights, places, strict=True):
        move_weight(weight, target.name, offset, length)


def _save(model: ir.Model, path: Path) -> None:
    names = sorted(filter(None, {location(weight) for weight in model.graph.initializers.values()}))
    model.metadata_props[WEIGHTS_KEY] = " ".join(f"{name}:{sha256_of(path.with_name(name))}" for name in names)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(serialised(model))
    os.replace(partial, path)
