"""MGCC Edge, the runtime: draws the next image of a story of texts and images, without torch.

    from mgcc_runtime import Pipeline
    with Pipeline.load("build/story-cpu-auto") as pipe:
        result = pipe.generate(["A fox sits under a tree.", "A balloon is above the fox."], seed=0)

Names are imported on first use, so that importing the package costs next to nothing. They stand in `__init__.pyi`.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any

from mgcc_runtime.version import VERSION

__version__ = VERSION


def _homes() -> dict[str, str]:
    """Each public name and the module that it comes from, as the stub imports them."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: node.module or "" for node in imports for alias in node.names}


_HOMES = _homes()
__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605 (a list, of what the stub names)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
