"""What is known of a TensorRT engine without loading it: the file STAGE.engine.json beside STAGE.engine.

A plan file says nothing readable without a driver, and reading a wrong one runs native code. So its record is written
when it is built, and held against this machine before the plan is opened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mgcc_runtime.errors import BundleError
from mgcc_runtime.names import record_file
from mgcc_runtime.reading import read_json

SCHEMA = 1
Shape = tuple[int, ...]


@dataclass(frozen=True)
class TensorRecord:
    """An input or output of the engine; -1 stands for a dynamic length."""

    name: str
    dtype: str  # TensorRT's word in lower case: float, half, int64, bool
    shape: Shape


@dataclass(frozen=True)
class ProfileRecord:
    """An optimisation profile: least, usual and largest shape of each dynamic input."""

    shapes: Mapping[str, tuple[Shape, Shape, Shape]]

    def holds(self, name: str, shape: Shape) -> bool:
        """Whether a shape of the input `name` lies within; inputs of fixed shape always do."""
        if name not in self.shapes:
            return True
        low, _, high = self.shapes[name]
        return all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))

    @property
    def spread(self) -> int:
        """How many lengths it takes: the narrowest profile that holds a shape has the best kernels for it."""
        product = 1
        for low, _, high in self.shapes.values():
            for a, b in zip(low, high, strict=True):
                product *= b - a + 1
        return product


@dataclass(frozen=True)
class LayerRecord:
    """A layer of the network as it was given to the builder, with the types of its results."""

    name: str
    kind: str
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class EngineRecord:
    library: str  # tensorrt or tensorrt_rtx
    version: str
    platform: str  # linux-x86_64
    compute_capability: str  # TensorRT: of the GPU it was built on; TensorRT-RTX: the least it runs on
    sha256: str  # of the engine's file
    inputs: tuple[TensorRecord, ...]
    outputs: tuple[TensorRecord, ...]
    profiles: tuple[ProfileRecord, ...]
    layers: tuple[LayerRecord, ...]
    rebuild: str
    command: str
    multiprocessors: int = 0  # TensorRT: of the GPU it was built on; 0: not known, or built for no certain one
    gpu_memory_bytes: int = 0  # of that GPU, in all

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> EngineRecord:
        """Rebuild from `to_json`; KeyError, TypeError or ValueError where a field is absent or of a wrong form."""
        return cls(
            **{name: str(values[name]) for name in ("library", "version", "platform", "compute_capability", "sha256")},
            inputs=_tensors(values["inputs"]),
            outputs=_tensors(values["outputs"]),
            profiles=tuple(_profile(p) for p in values["profiles"]),
            layers=tuple(LayerRecord(str(v["name"]), str(v["kind"]), tuple(v["dtypes"])) for v in values["layers"]),
            rebuild=str(values["rebuild"]),
            command=str(values["command"]),
            multiprocessors=int(values.get("multiprocessors", 0)),  # records of before know neither
            gpu_memory_bytes=int(values.get("gpu_memory_bytes", 0)),
        )

    def precision_by_layer(self) -> dict[str, dict[str, int]]:
        """Kind of layer -> type of its first result -> how many."""
        found: dict[str, dict[str, int]] = {}
        for layer in self.layers:
            of_kind = found.setdefault(layer.kind, {})
            dtype = layer.dtypes[0] if layer.dtypes else "none"
            of_kind[dtype] = of_kind.get(dtype, 0) + 1
        return found


def record_path(engine: Path) -> Path:
    """Where the record of an engine file lies."""
    return engine.with_name(record_file(engine.name))


def read_record(engine: Path) -> EngineRecord:
    """The record beside an engine file; BundleError if it is absent or of another form."""
    path = record_path(engine)
    if not path.is_file():
        raise BundleError(
            f"engine {engine} has no record {path.name}, so nothing is known of what it was built for; "
            "copy the bundle again, or build it again"
        )
    values = read_json(path, "engine record")
    try:
        if values["schema"] != SCHEMA:
            raise BundleError(
                f"engine record {path} has schema {values['schema']}, expected {SCHEMA}; build the engine again with "
                f"`{values.get('rebuild', 'python export/build_engines.py')}`"
            )
        return EngineRecord.from_json(values)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(
            f"engine record {path} is not of the expected form ({error!r}); build the engine again"
        ) from None


def _tensors(items: Any) -> tuple[TensorRecord, ...]:
    return tuple(TensorRecord(str(t["name"]), str(t["dtype"]), tuple(map(int, t["shape"]))) for t in items)


def _profile(values: Mapping[str, Any]) -> ProfileRecord:
    found = {}
    for name, ends in values["shapes"].items():
        low, usual, high = (tuple(map(int, end)) for end in ends)
        found[str(name)] = (low, usual, high)
    return ProfileRecord(found)
