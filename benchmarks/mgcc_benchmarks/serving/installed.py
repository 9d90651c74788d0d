"""The disk space that an extra of the distribution adds."""

from __future__ import annotations

import importlib.metadata
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[3] / "pyproject.toml"


def added_mb(extra: str) -> tuple[float, list[str]]:
    """Megabytes that `mgcc-edge[extra]` adds to `mgcc-edge`, and the distributions that it consists of."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    base = project["dependencies"]
    added = sorted(_closure([*base, *project["optional-dependencies"][extra]]) - _closure(base))
    files = [file for name in added for file in importlib.metadata.files(name) or []]
    places = (Path(str(file.locate())) for file in files)
    return sum(place.stat().st_size for place in places if place.is_file()) / 1e6, added


def _closure(wanted: list[str]) -> set[str]:
    """The names of all distributions that these requirements need."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = list(wanted)
    while waiting:
        requirement = Requirement(waiting.pop())
        name = requirement.name.lower().replace("_", "-")
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and name not in found:
            found.add(name)
            waiting += importlib.metadata.requires(name) or []
    return found
