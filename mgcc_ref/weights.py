"""Weights that this project writes: one safetensors file a training step. `published/` reads those of others."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class WeightsError(Exception):
    """Weights are missing or do not fit the module; the message says which, and where to get them."""


def save_module(module: nn.Module, path: Path) -> Path:
    """Write the module's state as safetensors: floats as fp16, integers as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in module.state_dict().items()}
    save_file(state, path)
    return path


def load_module(module: nn.Module, path: Path, prefix: str = "") -> None:
    """Load a file of `save_module`, converted to the module's dtypes. WeightsError if names or shapes differ.

    With a `prefix`, the module is that part of the file's, and only the tensors under it are read.
    """
    require_file(path)
    state = {k.removeprefix(prefix): v for k, v in read_tensors(path).items() if k.startswith(prefix)}
    expected = module.state_dict()
    wrong = [k for k in expected if k not in state or state[k].shape != expected[k].shape]
    wrong += [k for k in state if k not in expected]
    if wrong:
        raise WeightsError(f"weights {path} do not fit {type(module).__name__}: {', '.join(sorted(set(wrong))[:4])}")
    with torch.no_grad():
        module.load_state_dict({k: v.to(expected[k].dtype) for k, v in state.items()})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file; WeightsError if it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"weights {path} cannot be read as safetensors ({error}); copy them again") from error


def require_file(path: Path, profile: str = "story") -> None:
    """WeightsError if a file of trained weights is absent; it says how to get `profile`'s."""
    if path.is_file():
        return
    student = path.parent.name.endswith("-fast")  # see config.student_folder
    step = "student" if student else {"alignment": "align"}.get(path.stem, path.stem)
    if profile.startswith("story"):
        how = "check out the repository with its weights, or train them with `python -m mgcc_ref.train --step {}`"
        raise WeightsError(f"weights {path} are missing; {how.format(step)}")
    command = f"python -m mgcc_ref.train --profile {profile} --step {step} --weights {path.parent}"
    gill = ", or convert GILL's with `python tools/convert_gill.py`" if step == "align" and "gill" in profile else ""
    without = ", or export with `--grounder in-context`, which needs none" if step == "grounder" else ""
    raise WeightsError(f"weights {path} are missing; train them with `{command}`{gill}{without}")
