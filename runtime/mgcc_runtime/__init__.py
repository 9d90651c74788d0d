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
    from mgcc_runtime.bundle import Check
    from mgcc_runtime.chat import Chat, Overflow
    from mgcc_runtime.decoding import TextOptions
    from mgcc_runtime.errors import (
        BundleError,
        ClosedError,
        ContextLimitError,
        ContractError,
        EngineError,
        ImageError,
        InputError,
        KitError,
        LayoutError,
        MgccError,
        OptionError,
        OutputError,
        PromptError,
        StageMemoryError,
        StageValueError,
    )
    from mgcc_runtime.layout import Box, BoxMode
    from mgcc_runtime.pipeline import Pipeline
    from mgcc_runtime.request import Draw
    from mgcc_runtime.results import (
        BoxesReady,
        Event,
        ImageReady,
        Note,
        NoteCode,
        Reply,
        ReplyReady,
        Result,
        StepPreview,
        TextDelta,
    )
    from mgcc_runtime.streams import Stream

__version__ = VERSION

# module -> its public names
_NAMES = {
    "bundle": ("Check",),
    "chat": ("Chat", "Overflow"),
    "decoding": ("TextOptions",),
    "errors": (
        "BundleError", "ClosedError", "ContextLimitError", "ContractError", "EngineError", "ImageError", "InputError",
        "KitError", "LayoutError", "MgccError", "OptionError", "OutputError", "PromptError", "StageMemoryError",
        "StageValueError",
    ),
    "layout": ("Box", "BoxMode"),
    "pipeline": ("Pipeline",),
    "request": ("Draw",),
    "results": (
        "BoxesReady", "Event", "ImageReady", "Note", "NoteCode", "Reply", "ReplyReady", "Result", "StepPreview",
        "TextDelta",
    ),
    "streams": ("Stream",),
}  # fmt: skip
_HOMES = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Box", "BoxMode", "BoxesReady", "BundleError", "Chat", "Check", "ClosedError", "ContextLimitError", "ContractError",
    "Draw", "EngineError", "Event", "ImageError", "ImageReady", "InputError", "KitError", "LayoutError", "MgccError",
    "Note", "NoteCode", "OptionError", "OutputError", "Overflow", "Pipeline", "PromptError", "Reply", "ReplyReady",
    "Result", "StageMemoryError", "StageValueError", "StepPreview", "Stream", "TextDelta", "TextOptions", "__version__",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
