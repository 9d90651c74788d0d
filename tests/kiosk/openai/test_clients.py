"""OpenAI's client, unmodified, over every endpoint: the newest version and one a year old."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.exported import ROOT
from tests.kiosk.serving import Served

CONTRACT = Path(__file__).with_name("client_contract.py")
WHEELHOUSE = Path(sys.prefix) / "wheelhouse"  # tools/fetch_wheelhouses.py fills it
NEWEST, YEAR_OLD = "3.57.0", "2.8.1"


def checks() -> list[str]:
    tree = ast.parse(CONTRACT.read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")]


@pytest.fixture(scope="session", params=[NEWEST, YEAR_OLD])
def found(request: pytest.FixtureRequest, server: Served) -> dict[str, str]:
    """What each check of the contract says, "" where all is well."""
    version: str = request.param
    folder = WHEELHOUSE / f"openai-{version}"
    if version != NEWEST and not folder.is_dir():
        pytest.fail(f"{folder} is missing; `make setup` fetches the older client")
    places = [str(ROOT), *([str(folder)] if version != NEWEST else [])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(places)}
    command = [sys.executable, str(CONTRACT), server.url]
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    said: dict[str, str] = json.loads(done.stdout)
    assert said.pop("version") == version
    return said


@pytest.mark.parametrize("check", checks())
def test_contract(found: dict[str, str], check: str) -> None:
    assert found[check] == ""


def test_every_check_ran(found: dict[str, str]) -> None:
    assert sorted(found) == sorted(checks()) and len(found) > 14
