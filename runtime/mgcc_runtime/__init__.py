"""MGCC Edge, the runtime: draws the next image of a story of texts and images, without torch.

    from mgcc_runtime import Pipeline
    with Pipeline.load("build/story-cpu-auto") as pipe:
        result = pipe.generate(["A fox sits under a tree.", "A balloon is above the fox."], seed=0)

Names are imported on first use, so that importing the package costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mgcc_runtime.version import VERSION

if TYPE_CHECKING:
    from mgcc_runtime.chat import Chat, Overflow
    from mgcc_runtime.decoding import TextOptions
    from mgcc_runtime.errors import MgccError
    from mgcc_runtime.layout import Box, BoxMode
    from mgcc_runtime.pipeline import Pipeline
    from mgcc_runtime.request import Draw
    from mgcc_runtime.results import (
        BoxesReady,
        Event,
        ImageReady,
        Reply,
        ReplyReady,
        Result,
        StepPreview,
        TextDelta,
    )

__version__ = VERSION

_HOMES = {
    "MgccError": "errors",
    "Box": "layout",
    "BoxMode": "layout",
    "Chat": "chat",
    "Overflow": "chat",
    "Pipeline": "pipeline",
    "BoxesReady": "results",
    "Draw": "request",
    "Event": "results",
    "ImageReady": "results",
    "Reply": "results",
    "ReplyReady": "results",
    "Result": "results",
    "StepPreview": "results",
    "TextDelta": "results",
    "TextOptions": "decoding",
}

__all__ = [
    "Box", "BoxMode", "BoxesReady", "Chat", "Draw", "Event", "ImageReady", "MgccError", "Overflow", "Pipeline", "Reply",
    "ReplyReady", "Result", "StepPreview", "TextDelta", "TextOptions", "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
