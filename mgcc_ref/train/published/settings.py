"""A run's settings, kept in its folder: the same command resumes the run, and another one is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from mgcc_ref.train.errors import TrainingError

FILE = "settings.json"


def keep_settings(folder: Path, settings: Mapping[str, str | int]) -> None:
    """Write the settings, or compare them with those of the folder's run. TrainingError names what differs."""
    path = folder / FILE
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(settings), indent=1) + "\n", encoding="utf-8")
        return
    try:
        before = dict(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise TrainingError(f"{path} is not what a run writes ({error}); choose another --run folder") from error
    changed = [f"{name} {before.get(name)}, not {new}" for name, new in settings.items() if before.get(name) != new]
    if changed:
        raise TrainingError(
            f"the run in {folder} was started with {'; '.join(changed)}: give what it was started with, or choose "
            "another --run folder"
        )
