"""Each message that docs/troubleshooting.md quotes is one that the code can say."""

from __future__ import annotations

import ast
import re

import pytest

from .conftest import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
SOURCES = ("runtime/mgcc_runtime", "export/mgcc_export", "calibration/mgcc_calibration", "mgcc_ref")


def quoted() -> list[str]:
    """The messages of the tables' first column: they are in backticks and begin the row."""
    return re.findall(r"^\| `([^`]+)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def pieces(message: str) -> list[str]:
    """What stands between the names and figures, which the page writes as `...`."""
    return [piece.strip(" ;:(),") for piece in message.split("...") if len(piece.strip(" ;:(),")) > 2]


def said(node: ast.AST) -> str:
    """The constant text of a string, of an f-string or of a sum of both, with ... for what is filled in."""
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=values):
            return "".join(said(value) or "..." for value in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return said(left) + said(right)
    return ""


@pytest.fixture(scope="module")
def messages() -> list[str]:
    trees = (ast.parse(path.read_text(encoding="utf-8")) for root in SOURCES for path in (ROOT / root).rglob("*.py"))
    return [text for tree in trees for node in ast.walk(tree) if (text := said(node))]


def can_be_said(message: str, messages: list[str]) -> bool:
    return any(all(piece in text for piece in pieces(message)) for text in messages)


@pytest.mark.parametrize("message", quoted())
def test_a_quoted_message_is_one_of_the_code(message: str, messages: list[str]):
    assert pieces(message) and can_be_said(message, messages)


def test_the_page_quotes_messages_and_an_invented_one_is_found_out(messages: list[str]):
    assert len(quoted()) >= 12
    assert not can_be_said("bundle ... is in a very bad mood: ...", messages)
