"""The settings that an arm was trained with and records were drawn with, kept beside both to detect a mix-up.

Only settings that both sides state are compared. Older runs state none: they stay usable, with a warning that their
settings are unknown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mgcc_benchmarks.ablation.arms import ArmsPainter
from mgcc_benchmarks.storybench.evaluation import Plan
from mgcc_ref.config import Profile
from mgcc_ref.model import is_random, weight_files
from mgcc_ref.published.hub import find_llm
from mgcc_ref.story.bench_evaluator import EVALUATOR_FILE
from mgcc_runtime.bundle.folder import sha256_of
from mgcc_runtime.files import write_atomically
from mgcc_runtime.reading import read_json

SETTINGS_FILE = "settings.json"  # in the weights folder of an arm
CLIP_FILE = "clip.safetensors"  # every arm's folder has a copy of it

Settings = Mapping[str, Any]

_TRAINED = ("alignment", "grounder")  # each arm has its own
_SHA256_DIGITS = 64


def hashes(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file by its name; files that are not there are left out."""
    return {path.name: sha256_of(path) for path in files if path.is_file()}


def reading_files(profile: Profile) -> list[Path]:
    """The frozen files that an arm is trained with: CLIP and the language model. Empty for random weights.

    WeightsError if the language model is not installed.
    """
    if is_random(profile, None):
        return []
    llm = find_llm(profile.llm.source)
    return [profile.weights_folder / CLIP_FILE, *([llm] if llm.is_file() else sorted(llm.glob("*.safetensors")))]


def painting_files(profile: Profile) -> list[Path]:
    """The frozen files that pictures come from: those of `reading_files`, the UNet and the autoencoder."""
    if is_random(profile, None):
        return []
    own = [path for path in weight_files(profile, profile.weights_folder) if path.stem not in _TRAINED]
    return list(dict.fromkeys([*reading_files(profile), *own]))


def drawing_settings(plan: Plan, painter: ArmsPainter, evaluator: Path = EVALUATOR_FILE) -> dict[str, Any]:
    """The settings that records depend on, without the number of items, so that a longer run can reuse records."""
    arms = {str(path.relative_to(painter.folder)): sha256_of(path) for path in painter.trained_files}
    return {
        "suite": plan.suite.value,
        "setting": plan.setting.value,
        "seed": plan.seed,
        "denoising steps": painter.steps,
        "guidance": painter.guidance,
        "evaluator": hashes([evaluator]).get(evaluator.name),
        "frozen": hashes(painting_files(painter.model.profile)),
        "arms": arms,
    }


def differences(told: Settings, wanted: Settings) -> list[str]:
    """A phrase for each setting that differs between the two; a setting that one of them lacks is no difference."""
    found = []
    for name, ours in wanted.items():
        if name not in told or told[name] == ours:
            continue
        theirs = told[name]
        if isinstance(theirs, Mapping) and isinstance(ours, Mapping):
            found += differences(theirs, ours)
        elif any(isinstance(v, str) and len(v) == _SHA256_DIGITS for v in (theirs, ours)):
            found.append(f"another {name}")
        else:
            found.append(f"{name} {theirs}, not {ours}")
    return found


def read_settings(folder: Path) -> Settings | None:
    """The settings of the folder's arm, or None if it has none. InputError if the file is broken."""
    path = folder / SETTINGS_FILE
    if not path.is_file():
        return None
    found = read_json(path, "settings of an arm")
    return found if isinstance(found, dict) else None


def write_settings(folder: Path, settings: Settings) -> None:
    write_atomically(folder / SETTINGS_FILE, (json.dumps(settings, indent=2) + "\n").encode())
