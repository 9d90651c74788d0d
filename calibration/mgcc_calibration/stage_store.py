"""Stages that a build has chosen, kept by all that decides the choice, so that a killed build goes on after them."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mgcc_calibration.choose import Choice, Measurement
from mgcc_calibration.data import CalibrationData
from mgcc_calibration.forms import Engine, GraphForm, StagePrecision
from mgcc_calibration.graph import digest_of, files_of
from mgcc_calibration.low_bundle import StageChange
from mgcc_calibration.report import StageOutcome
from mgcc_runtime.bundle import sha256_of
from mgcc_runtime.errors import InputError
from mgcc_runtime.files import copy_file
from mgcc_runtime.machine import describe_machine
from mgcc_runtime.reading import Numbers, read_json

_ENTRY = "entry.json"
_KEY_LENGTH = 20
#: Of the machine, what a measured choice holds for; its load and memory change from call to call.
_MACHINE = ("cpu", "cpu_features", "cores", "system", "packages")


def stage_key(stage: str, source: Path, data: CalibrationData, settings: str) -> str:
    """SHA-256 of all that decides what a stage becomes: graph, samples, settings, machine, versions, source code."""
    machine = describe_machine()
    digest = hashlib.sha256()
    samples = [entry.sha256 for entry in data.manifest.stages.get(stage, ())]
    for text in (stage, digest_of(source), repr(samples), settings, repr([machine[name] for name in _MACHINE])):
        digest.update(text.encode() + b"\0")
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class StageStore:
    """A folder of chosen stages; of each name (a stage with the precision asked for) the newest alone."""

    root: Path

    def get(self, name: str, key: str) -> tuple[StageOutcome, StageChange] | None:
        """What became of the stage, its files' hashes checked; None if there is nothing, or something damaged."""
        folder = self._folder(name, key)
        try:
            entry = read_json(folder / _ENTRY, "entry of a chosen stage", Numbers.ANY)
            intact = all(sha256_of(folder / file) == digest for file, digest in entry["files"].items())
            change = StageChange(folder / entry["graph"], entry["engine"], entry["precision"])
            outcome = _outcome(entry["outcome"])
        except (InputError, OSError, ValueError, TypeError, KeyError, AttributeError):
            return None
        return (outcome, change) if intact else None

    def put(self, name: str, key: str, outcome: StageOutcome, change: StageChange) -> StageChange:
        """Keep the stage under a temporary name and rename it: half a stage is never found. Returns the kept graph."""
        self.root.mkdir(parents=True, exist_ok=True)
        folder = self._folder(name, key)
        temporary = Path(tempfile.mkdtemp(prefix=f"{name}.partial-", dir=self.root))
        try:
            files = {path.name: sha256_of(path) for path in files_of(change.path)}
            for file in files:
                copy_file(change.path.with_name(file), temporary / file)
            entry = {
                "graph": change.path.name, "engine": change.engine, "precision": change.precision, "files": files,
                "outcome": asdict(outcome),
            }  # fmt: skip
            (temporary / _ENTRY).write_text(json.dumps(entry, indent=1), encoding="utf-8")
            for old in self.root.glob(f"{name}-{'[0-9a-f]' * _KEY_LENGTH}"):
                shutil.rmtree(old, ignore_errors=True)
            temporary.rename(folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return StageChange(folder / change.path.name, change.engine, change.precision)

    def _folder(self, name: str, key: str) -> Path:
        return self.root / f"{name}-{key[:_KEY_LENGTH]}"


def _outcome(values: Mapping[str, Any]) -> StageOutcome:
    """Rebuild from `dataclasses.asdict`; KeyError or TypeError where a field is absent or of another form."""
    choice = values["choice"]
    measured = tuple(_measurement(m) for m in choice["measurements"])
    chosen = Choice(**{**choice, "chosen": _measurement(choice["chosen"]), "measurements": measured})
    return StageOutcome(**{**values, "choice": chosen})


def _measurement(values: Mapping[str, Any]) -> Measurement:
    enums = {
        "engine": Engine(values["engine"]),
        "precision": StagePrecision(values["precision"]),
        "form": GraphForm(values["form"]),
    }
    return Measurement(**{**values, **enums})
