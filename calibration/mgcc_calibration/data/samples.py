"""Calibration data on disk: one .npz a sample, and a manifest with the hash of each. Nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgcc_calibration.errors import DataError
from mgcc_runtime.bundle.folder import sha256_of
from mgcc_runtime.contract import DType, StageSpec
from mgcc_runtime.errors import InputError
from mgcc_runtime.reading import read_json, read_npz

Array = NDArray[Any]
Feeds = dict[str, Array]

MANIFEST = "calibration.json"
SCHEMA = 1
#: Inputs that may rightly be the same in every sample: a setting, and a layout without objects.
_MAY_BE_CONSTANT = {"guidance", "boxes", "box_mask", "phrase_embeddings"}
#: Inputs that are made once a request: the same in all samples of one.
_OF_A_REQUEST = {"conditioning"}
_AGAIN = "capture it again with `python -m mgcc_calibration capture`"


@dataclass(frozen=True)
class SampleEntry:
    """One call of a stage: its inputs by name in `file`."""

    file: str
    bytes: int
    sha256: str
    request: int
    call: int  # of this stage within the request


@dataclass(frozen=True)
class DataManifest:
    """What was captured, from what, and what it cost."""

    profile: str
    graphs: Mapping[str, str]  # stage -> SHA-256 of the graph that ran
    source: str
    seed: int
    requests: int
    steps: int
    words: int
    elapsed_s: float
    stages: Mapping[str, tuple[SampleEntry, ...]]

    def bytes_of(self, stage: str) -> int:
        return sum(entry.bytes for entry in self.stages.get(stage, ()))

    def to_json(self) -> dict[str, Any]:
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> DataManifest:
        """Rebuild from `to_json`; KeyError or TypeError where a field is absent or of another form."""
        fields = {name: value for name, value in values.items() if name not in ("schema", "stages")}
        stages = {s: tuple(SampleEntry(**e) for e in entries) for s, entries in values["stages"].items()}
        return cls(**fields, stages=stages)


@dataclass(frozen=True)
class CalibrationData:
    """A folder of captured samples."""

    root: Path
    manifest: DataManifest

    @classmethod
    def open(cls, root: Path) -> CalibrationData:
        """Read the folder's manifest; DataError if there is none or it is of another form."""
        path = root / MANIFEST
        if not path.is_file():
            raise DataError(f"{root} holds no calibration data, it has no {MANIFEST}; {_AGAIN}")
        values = read_json(path, "calibration manifest")
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise DataError(f"{path} is not of schema {SCHEMA}; {_AGAIN}")
        try:
            return cls(root, DataManifest.from_json(values))
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} is not of the expected form ({error!r}); {_AGAIN}") from None

    def samples(self, stage: str) -> Iterator[Feeds]:
        """The stage's inputs, sample by sample in the order of capture; DataError for a missing or altered file."""
        for entry in self.manifest.stages.get(stage, ()):
            path = self.root / entry.file
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise DataError(f"{path} is outside the folder {self.root}; {_AGAIN}")
            if not path.is_file() or sha256_of(path) != entry.sha256:
                raise DataError(f"{path} is missing or altered, expected SHA-256 {entry.sha256[:12]}...; {_AGAIN}")
            try:
                yield read_npz(path, "calibration sample")
            except InputError as error:
                raise DataError(f"{error}, or {_AGAIN}") from None

    def check(self, spec: StageSpec) -> int:
        """The number of samples; DataError with the reason if the stage cannot be calibrated from them."""
        requests = {entry.request for entry in self.manifest.stages.get(spec.name, ())}
        return check_samples(spec, self.samples(spec.name), requests=len(requests))


class _Spread:
    """Least and largest value of one input over all samples."""

    def __init__(self) -> None:
        self.low, self.high, self.values = np.inf, -np.inf, 0

    def add(self, array: Array) -> None:
        if array.size:
            self.low, self.high = min(self.low, float(array.min())), max(self.high, float(array.max()))
            self.values = max(self.values, array.size)

    @property
    def constant(self) -> bool:
        return self.values > 0 and self.low == self.high


def check_samples(spec: StageSpec, samples: Iterator[Feeds], *, requests: int = 1) -> int:
    """The number of samples, which come from `requests` requests.

    DataError with the reason for what a range cannot be taken from: no samples, an absent input, NaN, infinity, or an
    input that should vary and does not, within its samples or from one to the next.
    """
    floats = [t.name for t in spec.inputs if t.dtype is DType.FLOAT32]
    spreads = {name: _Spread() for name in floats}
    first: Feeds | None = None
    count, same = 0, {t.name for t in spec.inputs}
    for count, feeds in enumerate(samples, 1):
        if missing := [t.name for t in spec.inputs if t.name not in feeds]:
            raise DataError(f"sample {count} of stage {spec.name} has no {', '.join(missing)}; {_AGAIN}")
        for name in floats:
            if bad := int(feeds[name].size - np.isfinite(feeds[name]).sum()):
                raise DataError(
                    f"sample {count} of stage {spec.name} holds {bad} values of NaN or infinity in {name}, "
                    f"expected finite numbers; find the stage that gave them with `mgcc verify`, then {_AGAIN}"
                )
            spreads[name].add(feeds[name])
        first = first or feeds
        same = {name for name in same if np.array_equal(feeds[name], first[name])}
    if count == 0:
        raise DataError(f"there is no calibration data of stage {spec.name}; {_AGAIN}")
    _check_spreads(spec, spreads, count)
    filled = {name for name, spread in spreads.items() if spread.values}  # the cache before a prefill holds nothing
    _check_differences(spec, same, filled, count, requests)
    return count


def _check_spreads(spec: StageSpec, spreads: Mapping[str, _Spread], count: int) -> None:
    """DataError for an input that is one number throughout and should not be."""
    for name, spread in spreads.items():
        if spread.constant and name not in _MAY_BE_CONSTANT and not (name == "timestep" and count == 1):
            raise DataError(
                f"{name} of stage {spec.name} is {spread.low:g} throughout its {count} samples, expected values that "
                f"vary; {_AGAIN} and with more requests or steps"
            )


def _check_differences(
    spec: StageSpec, same: Collection[str], filled: Collection[str], count: int, requests: int
) -> None:
    """DataError for equal samples, and for an input that is the `same` in all of them and should differ.

    Of the inputs, `filled` alone are held to that: floats that hold something. Masks are rightly the same for texts of
    one length.
    """
    if count == 1:
        return
    if len(same) == len(spec.inputs):
        raise DataError(f"all {count} samples of stage {spec.name} are equal, expected different ones; {_AGAIN}")
    settled = _MAY_BE_CONSTANT | (_OF_A_REQUEST if requests == 1 else set())
    for tensor in spec.inputs:
        if tensor.name in same and tensor.name in filled and tensor.name not in settled:
            raise DataError(
                f"{tensor.name} of stage {spec.name} is the same in all {count} samples, expected it to differ; "
                f"{_AGAIN} from requests that differ"
            )
