"""What runs on a device keeps to Python 3.10, and the check that says so finds what is newer."""

from __future__ import annotations

import runpy

import pytest

from .conftest import ROOT

CHECK = runpy.run_path(str(ROOT / "tools" / "oldest_python.py"))

#: Each of them passes ruff with target py310, and mypy.
NEWER = {
    "StrEnum": "import enum\nclass Edges(enum.StrEnum):\n    FREE = 'free'\n",
    "StrEnum by name": "from enum import StrEnum\n",
    "UTC": "import datetime\nNOW = datetime.datetime.now(datetime.UTC)\n",
    "Self": "from typing import Self\n",
    "tomllib": "import tomllib\n",
    "timeout": "import asyncio\nasync def f():\n    async with asyncio.timeout(1):\n        pass\n",
    "TaskGroup": "import asyncio\nGROUP = asyncio.TaskGroup()\n",
    "except*": "try:\n    pass\nexcept* ValueError:\n    pass\n",
    "ExceptionGroup": "def f():\n    raise ExceptionGroup('several', [])\n",
    "batched": "import itertools\nitertools.batched('abc', 2)\n",
    "file_digest": "import hashlib\nhashlib.file_digest(open('x', 'rb'), 'sha256')\n",
}


def test_nothing_on_a_device_needs_a_newer_python() -> None:
    assert CHECK["findings"](CHECK["device_modules"]().values()) == ""


@pytest.mark.parametrize("name", NEWER)
def test_what_is_newer_is_found(name: str, found_in_newer: str) -> None:
    assert f"{name}.py" in found_in_newer


@pytest.fixture(scope="module")
def found_in_newer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the check says of all these at once: its start takes longer than its reading."""
    folder = tmp_path_factory.mktemp("newer")
    for name, code in NEWER.items():
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    found: str = CHECK["findings"](sorted(folder.glob("*.py")))
    return found


def test_whole_runtime_and_all_that_builds_engines_on_a_device_is_looked_at() -> None:
    modules = CHECK["device_modules"]()
    assert set((ROOT / "runtime").rglob("*.py")) <= set(modules.values())
    assert {"mgcc_export.device_build", "mgcc_export.tensorrt.settings", "mgcc_export.tensorrt.builder"} <= set(modules)
    assert not [name for name in modules if name.startswith(("mgcc_ref", "mgcc_calibration"))]
