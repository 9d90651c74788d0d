"""`tools/average_weights.py`: what it writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tools.average_weights import main


def write(path: Path, **tensors: torch.Tensor) -> str:
    save_file(tensors, path)
    return str(path)


def test_the_average_lies_at_its_share_of_the_way(tmp_path: Path) -> None:
    first = write(tmp_path / "a.safetensors", w=torch.tensor([0.0, 10.0]).half(), n=torch.tensor([1.0]))
    second = write(tmp_path / "b.safetensors", w=torch.tensor([1.0, -10.0]).half(), n=torch.tensor([2.0]))
    out = tmp_path / "made" / "c.safetensors"
    assert main(["--first", first, "--second", second, "--share", "0.75", "--out", str(out)]) == 0
    made = load_file(out)
    assert made["w"].tolist() == [0.75, -5.0] and made["w"].dtype is torch.float16
    assert made["n"].tolist() == [1.75] and made["n"].dtype is torch.float32


def test_weights_of_two_steps_and_other_shares_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path / "a.safetensors", w=torch.zeros(2))
    other = write(tmp_path / "b.safetensors", w=torch.zeros(3))
    assert main(["--first", first, "--second", other, "--out", str(tmp_path / "c.safetensors")]) == 2
    assert "other tensors" in capsys.readouterr().err
    assert main(["--first", first, "--second", first, "--share", "2", "--out", str(tmp_path / "c.safetensors")]) == 2
    assert "expected 0 to 1" in capsys.readouterr().err
    assert not (tmp_path / "c.safetensors").exists()
