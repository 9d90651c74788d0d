"""Files and functions are short and take few parameters, and the check that says so finds those that do not."""

from __future__ import annotations

import runpy
from pathlib import Path

from .conftest import ROOT

CHECK = runpy.run_path(str(ROOT / "tools" / "code_size.py"))


def test_nothing_is_too_long() -> None:
    assert CHECK["main"]([]) == 0


def test_a_file_of_a_line_too_many_is_found(tmp_path: Path) -> None:
    path = tmp_path / "long.py"
    path.write_text("x = 1\n" * CHECK["FILE_LINES"], encoding="utf-8")
    assert not list(CHECK["findings"]([path]))
    path.write_text("x = 1\n" * (CHECK["FILE_LINES"] + 1), encoding="utf-8")
    (found,) = CHECK["findings"]([path])
    assert "401 lines, expected at most 400" in found


def test_a_function_of_a_line_too_many_is_found(tmp_path: Path) -> None:
    """A method inside a class, too."""
    path, most = tmp_path / "long.py", CHECK["FUNCTION_LINES"]
    body = "        x = 1\n"
    path.write_text("class A:\n    def short(self):\n" + body * (most - 1), encoding="utf-8")
    assert not list(CHECK["findings"]([path]))
    path.write_text("class A:\n    async def long(self):\n" + body * most, encoding="utf-8")
    (found,) = CHECK["findings"]([path])
    assert "long.py:2: long has 61 lines" in found


def test_a_function_of_a_parameter_too_many_is_found(tmp_path: Path) -> None:
    """Those by name alone count, `self` does not; of a test they are its fixtures."""
    path, six = tmp_path / "many.py", "a, /, b, c, *, d, e, f"
    path.write_text(
        f"class A:\n    def few(self, {six}, **others): ...\ndef test_it({six}, g): ...\n", encoding="utf-8"
    )
    assert not list(CHECK["findings"]([path]))
    path.write_text(f"class A:\n    def many(self, {six}, g): ...\n", encoding="utf-8")
    (found,) = CHECK["findings"]([path])
    assert "many.py:2: many takes 7 parameters, expected at most 6" in found


def test_every_exception_is_needed() -> None:
    known = dict(CHECK["MORE_PARAMETERS"])
    CHECK["MORE_PARAMETERS"].clear()  # its functions read this very dict
    try:
        for name in known:
            path, _, function = name.partition(":")
            assert any(f": {function} takes " in line for line in CHECK["findings"]([ROOT / path])), name
    finally:
        CHECK["MORE_PARAMETERS"].update(known)
