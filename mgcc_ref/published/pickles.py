"""Pickled checkpoints, read for tensors and plain values without running code.

PyTorch reads them with `weights_only=True`. Published ones also hold settings and callbacks of other libraries
(OmegaConf in GLIGEN's, PyTorch Lightning in Stable Diffusion's): these become stand-ins that do nothing.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from mgcc_ref.weights import WeightsError

#: Packages of the classes in published checkpoints, and of plain types that their settings name.
_BESIDE = ("omegaconf", "pytorch_lightning", "lightning", "lightning_fabric", "typing", "argparse")
_PLAIN = frozenset(
    {f"builtins.{name}" for name in ("dict", "list", "int", "float", "str", "bool", "set", "tuple", "object")}
    | {"collections.defaultdict", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"}
)


class Inert:
    """A stand-in for an object of another library: it accepts any state, and does nothing."""

    def __new__(cls, *_given: object, **_named: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *given: object, **named: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        self.state = state

    def __setitem__(self, key: object, value: object) -> None:
        pass


def read_pickle(path: Path) -> Any:
    """The content of a pickled checkpoint, tensors memory-mapped. WeightsError if it would run code, or is damaged.

    Objects of other libraries are `Inert`; `plain` gives the settings in them.
    """
    mapped = zipfile.is_zipfile(path)  # files from before PyTorch 1.6 cannot be mapped
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        names = _others(path, error)
    except (OSError, EOFError, RuntimeError, ValueError) as error:
        raise _damaged(path, error) from error
    stand_ins: list[Any] = [(type("Inert", (Inert,), {}), name) for name in names]
    try:
        with safe_globals(stand_ins):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except (OSError, EOFError, RuntimeError, ValueError, TypeError, AttributeError, pickle.UnpicklingError) as error:
        raise _damaged(path, error) from error


def _others(path: Path, error: Exception) -> list[str]:
    """Names of the classes besides tensors; WeightsError if one of them is of no package in `_BESIDE`."""
    try:
        names = list(get_unsafe_globals_in_checkpoint(path))
    except (OSError, EOFError, RuntimeError, ValueError, pickle.UnpicklingError):
        raise _damaged(path, error) from error
    foreign = [name for name in names if name not in _PLAIN and name.partition(".")[0] not in _BESIDE]
    if foreign:
        raise WeightsError(
            f"{path} would run {', '.join(foreign[:4])} when it is read, expected tensors and settings alone; "
            "do not trust it, and get the weights from where they are published"
        )
    return names


def _damaged(path: Path, error: Exception) -> WeightsError:
    reason = (str(error) or type(error).__name__).strip().splitlines()[0]
    return WeightsError(f"{path} cannot be read as pickled tensors ({reason}); copy it again")


def plain(value: Any) -> Any:
    """Settings without `Inert` objects: OmegaConf's containers and nodes as dicts, lists and values."""
    if isinstance(value, Inert):
        state = getattr(value, "state", None)
        state = state if isinstance(state, dict) else {}
        return plain(state.get("_content", state.get("_val")))
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, list | tuple) else value
