"""Stages that a build has chosen, kept by all that decides the choice, so that a killed build goes on after them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mgcc_calibration.bundle.replace_stages import StageChange
from mgcc_calibration.cache import Cache, Entry, Form
from mgcc_calibration.candidates.candidate import Engine, GraphForm
from mgcc_calibration.candidates.selection import Choice, Measurement
from mgcc_calibration.data.samples import CalibrationData
from mgcc_calibration.graphs.storage import digest_of, files_of
from mgcc_calibration.report import StageOutcome
from mgcc_calibration.source_digest import source_digest
from mgcc_ref.precision import Precision
from mgcc_runtime.files import copy_file
from mgcc_runtime.machine import describe_machine

#: What became of a stage, and the graph that it gets.
ChosenStage = tuple[StageOutcome, StageChange]

#: Of the machine, what a measured choice holds for; its load and memory change from call to call.
_MACHINE = ("cpu", "cpu_features", "cores", "system", "packages")


def stage_key(stage: str, source: Path, data: CalibrationData, settings: str) -> str:
    """SHA-256 of all that decides what a stage becomes: graph, samples, settings, machine, versions, source code."""
    machine = describe_machine()
    digest = hashlib.sha256()
    samples = [entry.sha256 for entry in data.manifest.stages.get(stage, ())]
    holds_for = repr([machine[name] for name in _MACHINE])
    for text in (stage, digest_of(source), repr(samples), settings, holds_for, source_digest("mgcc_calibration")):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def chosen_stages(root: Path) -> Cache[ChosenStage]:
    """The cache of chosen stages, by name (a stage with the precision asked for)."""
    return Cache(root, Form(_to_json, _read))


def keep(cache: Cache[ChosenStage], name: str, key: str, chosen: ChosenStage) -> ChosenStage:
    """Copy what was chosen into the cache; returns it with the kept graph."""
    outcome, change = chosen

    def fill(folder: Path) -> ChosenStage:
        for path in files_of(change.path):
            copy_file(path, folder / path.name)
        return outcome, replace(change, path=folder / change.path.name)

    return cache.put(name, key, fill)


def _to_json(chosen: ChosenStage) -> dict[str, Any]:
    outcome, change = chosen
    return {
        "graph": change.path.name, "engine": change.engine, "precision": change.precision, "outcome": asdict(outcome),
    }  # fmt: skip


def _read(entry: Entry) -> ChosenStage:
    values = entry.values
    change = StageChange(entry.folder / values["graph"], values["engine"], values["precision"])
    return _outcome(values["outcome"]), change


def _outcome(values: Mapping[str, Any]) -> StageOutcome:
    """Rebuild from `dataclasses.asdict`; KeyError or TypeError where a field is absent or of another form."""
    choice = values["choice"]
    measured = tuple(_measurement(m) for m in choice["measurements"])
    chosen = Choice(**{**choice, "chosen": _measurement(choice["chosen"]), "measurements": measured})
    return StageOutcome(**{**values, "choice": chosen})


def _measurement(values: Mapping[str, Any]) -> Measurement:
    enums = {
        "engine": Engine(values["engine"]),
        "precision": Precision(values["precision"]),
        "form": GraphForm(values["form"]),
    }
    return Measurement(**{**values, **enums})
