"""The contact sheet is written, and arguments that ask for nothing are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mgcc_ref.story.__main__ import main


def test_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "new" / "sheet.png"
    assert main(["--sheet", str(sheet), "--stories", "2", "--dialogues", "1", "--seed", "3"]) == 0
    assert capsys.readouterr().out.strip() == str(sheet)
    with Image.open(sheet) as image:
        assert image.width > 6 * 128
        assert image.height > 3 * 128


def test_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "give --sheet FILE.png or --speed" in capsys.readouterr().err
