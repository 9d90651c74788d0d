"""The wheels that a device needs, fetched by pip for another Python and processor than those that pip runs on.

pip takes files for the target but reads the markers of requirements (`python_version < "3.11"`) by its own Python: with
Python 3.11 it leaves out two packages that Python 3.10 needs. So what was fetched is held against the target here, by
`packaging`, and what is lacking is asked for.
"""

from __future__ import annotations

import email
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mgcc_runtime.errors import KitError
from mgcc_runtime.kit.target import Target

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_ROUNDS = 5  # of asking for what is lacking; two were enough for every kit that was made
_PROBLEM = re.compile(r"^ERROR: (.*)$", re.MULTILINE)


def fetch(wanted: Sequence[str], target: Target, folder: Path, constraints: Sequence[str] = ()) -> list[Path]:
    """Put into `folder` the wheels that `wanted` (requirements) needs on the target, and no others.

    `constraints` are lines `NAME==VERSION`, with markers if need be. Raises KitError: pip is missing or failed.
    """
    _need("packaging", "pip install 'mgcc-edge[kit]'")
    asked = list(wanted)
    for _ in range(_ROUNDS):
        with tempfile.TemporaryDirectory(prefix="mgcc-wheels-") as scratch:
            _download(asked, target, Path(scratch), _lines_for(constraints, target))
            needed, lacking = closure(wanted, sorted(Path(scratch).glob("*.whl")), target)
            if not lacking:
                folder.mkdir(parents=True, exist_ok=True)
                return [Path(shutil.copy2(wheel, folder / wheel.name)) for wheel in needed]
        asked += lacking
    raise KitError(
        f"wheels for {target} still lack {', '.join(lacking)} after {_ROUNDS} rounds of asking, expected all of them; "
        "give pip an index that has them"
    )


def closure(wanted: Iterable[str], wheels: Sequence[Path], target: Target) -> tuple[list[Path], list[str]]:
    """Of these wheels those that `wanted` needs on the target, and the requirements that none of them meets."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name, parse_wheel_filename

    here = {parse_wheel_filename(wheel.name)[0]: wheel for wheel in wheels}
    waiting = [Requirement(line) for line in wanted]
    needed: dict[str, Path] = {}
    lacking: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        wheel = here.get(name)
        version = parse_wheel_filename(wheel.name)[1] if wheel else None
        if wheel is None or version is None or not requirement.specifier.contains(version, prereleases=True):
            lacking[name] = f"{requirement.name}{requirement.specifier}"
        elif (name, extras) not in seen:
            seen.add((name, extras))
            needed[name] = wheel
            waiting += [r for r in map(Requirement, _required(wheel)) if _applies(r, target, extras)]
    return sorted(needed.values()), sorted(lacking.values())


def _required(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", n))
        return email.message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])


def _applies(requirement: Requirement, target: Target, extras: Iterable[str] = ()) -> bool:
    """Whether its marker holds on the target, on any patch release of its Python, for any of the extras or none."""
    marker = requirement.marker
    environments: list[Mapping[str, str]] = [*target.environments()]
    return marker is None or any(
        marker.evaluate({**environment, "extra": extra}) for environment in environments for extra in ("", *extras)
    )


def _lines_for(constraints: Sequence[str], target: Target) -> list[str]:
    """Those that apply to the target, without their markers, which pip would hold against its own Python."""
    from packaging.requirements import Requirement

    found = [Requirement(line) for line in constraints]
    return [f"{r.name}{r.specifier}" for r in found if _applies(r, target)]


def _download(wanted: Sequence[str], target: Target, folder: Path, constraints: Sequence[str]) -> None:
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", target.python]
    options += [word for tag in target.tags for word in ("--platform", tag)]
    if constraints:
        path = folder / "constraints.txt"
        path.write_text("\n".join(constraints), encoding="utf-8")
        options += ["--constraint", str(path)]
    run_pip(["download", "--dest", str(folder), *options, *wanted], f"wheels for {target} cannot be fetched")


def run_pip(arguments: Sequence[str], failure: str) -> None:
    """Run pip of this Python; KitError, with `failure` and what pip says, if there is none or it fails."""
    _need("pip", "python -m ensurepip")
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = _PROBLEM.findall(done.stderr) or done.stderr.strip().splitlines()[-1:]
        raise KitError(f"{failure} ({'; '.join(said)[:600]}); see to pip's index and network, or choose another target")


def _need(package: str, way_to_get: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise KitError(f"a kit is made with the package {package}, which this Python lacks; get it with `{way_to_get}`")
