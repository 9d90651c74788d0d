"""Everything that knows a foreign format: safetensors folders, GGUF packages, hub layouts, GILL's checkpoint names."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn


class WeightsError(Exception):
    """Weights are missing or do not fit the module; the sentence says which, and where to get them."""


def save_module(module: nn.Module, path: Path) -> Path:
    """Write the module's state as safetensors: floats as fp16, integers as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in module.state_dict().items()}
    save_file(state, path)
    return path


def load_module(module: nn.Module, path: Path) -> None:
    """Load what `save_module` wrote, strictly; fp16 becomes the module's own dtype."""
    if not path.is_file():
        raise WeightsError(
            f"weights {path} are missing; check out the repository with its weights, or train them with "
            f"`python -m mgcc_ref.train --step {path.stem}`"
        )
    state = load_file(path)
    expected = module.state_dict()
    wrong = [k for k in expected if k not in state or state[k].shape != expected[k].shape]
    wrong += [k for k in state if k not in expected]
    if wrong:
        raise WeightsError(f"weights {path} do not fit {type(module).__name__}: {', '.join(sorted(set(wrong))[:4])}")
    with torch.no_grad():
        module.load_state_dict({k: v.to(expected[k].dtype) for k, v in state.items()})
