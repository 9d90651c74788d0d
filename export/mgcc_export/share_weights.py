"""Two graphs of a bundle that hold the same weights, as the UNet with and without its gates do: one file for both.

ONNX lets a weight lie in any file beside its graph. Stages stay whole in the cache, each under a key of its own; they
come to share when a bundle is put together. TensorRT's engines cannot: a plan holds its weights in itself.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
from onnx import ModelProto, TensorProto
from onnx.external_data_helper import ExternalDataInfo, set_external_data

from mgcc_runtime.bundle import sha256_of
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
    first, second = (onnx.load(path, load_external_data=False) for path in (owner, reader))
    held = {_digest(tensor, folder): tensor for tensor in _large(first)}
    known = [(tensor, _digest(tensor, folder)) for tensor in _large(second)]
    common = [(tensor, digest) for tensor, digest in known if digest in held]
    saved = sum(_length(tensor) for tensor, digest in common if not _same_file(tensor, held[digest]))
    if not saved:
        return 0
    # the reader's first: what it alone holds may lie in the file that the owner's are about to replace
    own = [tensor for tensor, digest in known if digest not in held and _location(tensor) is not None]
    _write_out(own, folder, _data_of(reader))
    if {_location(tensor) for tensor in _large(first)} != {data.name}:
        _write_out(list(_large(first)), folder, data)
    for tensor, digest in common:
        _point(tensor, data.name, *_place(held[digest]))
    for model, path in ((first, owner), (second, reader)):
        _save(model, path)
    return saved


def _data_of(graph: Path) -> Path:
    return graph.with_name(weights_file(graph.name))


def _large(model: ModelProto) -> Iterator[TensorProto]:
    """The weights that are worth a place in a file; those not stored as plain bytes are small."""
    for tensor in model.graph.initializer:
        if _location(tensor) is not None or len(tensor.raw_data) >= LEAST_BYTES:
            yield tensor


def _location(tensor: TensorProto) -> str | None:
    """Name of the file that the weight lies in; None for one in the graph."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return None
    return str(ExternalDataInfo(tensor).location)


def _place(tensor: TensorProto) -> _Place:
    info = ExternalDataInfo(tensor)
    return int(info.offset or 0), int(info.length or 0)


def _content(tensor: TensorProto, folder: Path) -> bytes:
    """The weight as it is stored."""
    name = _location(tensor)
    if name is None:
        return bytes(tensor.raw_data)
    offset, length = _place(tensor)
    with (folder / name).open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _digest(tensor: TensorProto, folder: Path) -> bytes:
    return hashlib.sha256(_content(tensor, folder)).digest()


def _same_file(one: TensorProto, other: TensorProto) -> bool:
    return _location(one) is not None and _location(one) == _location(other)


def _length(tensor: TensorProto) -> int:
    return len(tensor.raw_data) if _location(tensor) is None else _place(tensor)[1]


def _point(tensor: TensorProto, name: str, offset: int, length: int) -> None:
    """Have a weight lie at a place in the file called `name`."""
    tensor.raw_data = b""  # onnx wants the field to be there, and writes none of it
    set_external_data(tensor, name, offset, length)
    tensor.ClearField("raw_data")


def _write_out(tensors: Sequence[TensorProto], folder: Path, target: Path) -> None:
    """Write weights, one in memory at a time, to a new file `target`, which may be one that they come from.

    No weights: no file.
    """
    if not tensors:
        target.unlink(missing_ok=True)
        return
    partial, places = target.with_name(f".{target.name}.partial"), list[_Place]()
    with partial.open("wb") as file:
        for tensor in tensors:
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            content = _content(tensor, folder)
            places.append((file.tell(), len(content)))
            file.write(content)
    os.replace(partial, target)
    for tensor, (offset, length) in zip(tensors, places, strict=True):
        _point(tensor, target.name, offset, length)


def _save(model: ModelProto, path: Path) -> None:
    names = sorted({name for tensor in model.graph.initializer if (name := _location(tensor)) is not None})
    kept = [entry for entry in model.metadata_props if entry.key != WEIGHTS_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    listed = " ".join(f"{name}:{sha256_of(path.with_name(name))}" for name in names)
    model.metadata_props.add(key=WEIGHTS_KEY, value=listed)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(model.SerializeToString(deterministic=True))
    os.replace(partial, path)
