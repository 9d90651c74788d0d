"""docs/serving.md says what the code does: limits, codes, and the endpoints."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from mgcc_kiosk.app import MODULES
from mgcc_kiosk.errors import Code
from mgcc_kiosk.settings import Limits
from tests.exported import ROOT

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
KIOSK = Path(ROOT) / "runtime" / "mgcc_kiosk"


def test_limits() -> None:
    told = re.findall(r"^\| `(\w+)` \| ([\d.]+) \| (.+) \|$", PAGE, re.MULTILINE)
    assert told == [(limit.name, f"{limit.default:g}", limit.metadata["told"]) for limit in dataclasses.fields(Limits)]


def test_errors() -> None:
    rows = re.findall(r"^\| (\d{3}) \| (.+?) \|", PAGE, re.MULTILINE)
    told = {(word, int(status)) for status, words in rows for word in re.findall(r"`(\w+)`", words)}
    assert told == {(code.word, code.status) for code in Code}


def test_every_endpoint_is_told() -> None:
    paths = {route.path.replace(":int", "") for module in MODULES for route in module.ROUTES}
    places = PAGE.replace("{id}", "{model}") + PAGE.replace("{id}", "{response}") + PAGE.replace("{k}", "{turn}")
    assert [
        path for path in paths if path.replace("/v1/responses/{response}/cancel", "/v1/responses") not in places
    ] == []


def test_every_code_is_used() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in KIOSK.rglob("*.py"))
    assert [code.name for code in Code if f"Code.{code.name}" not in text] == []
