"""A bundle's golden layout: what the reference's language model wrote, token for token."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mgcc_runtime.bundle.folder import REBUILD, Bundle
from mgcc_runtime.errors import BundleError
from mgcc_runtime.in_context.grounding import InContextGrounder
from mgcc_runtime.in_context.writing import WrittenLayout
from mgcc_runtime.layout_text import LayoutPrompt
from mgcc_runtime.names import GOLDEN_LAYOUT
from mgcc_runtime.pipeline import Pipeline
from mgcc_runtime.prompt import Part
from mgcc_runtime.reading import read_json
from mgcc_runtime.stopwatch import Stopwatch
from mgcc_runtime.story import parse_story, story_json


@dataclass(frozen=True)
class LayoutGolden:
    """With the examples of the build, so that it holds for a bundle whose examples were edited."""

    parts: tuple[Part, ...]
    prompt: LayoutPrompt
    lines: int  # at most
    token_ids: tuple[int, ...]
    text: str

    def to_json(self) -> dict[str, Any]:
        """layout.json; images are paths in its folder."""
        return {
            **story_json(self.parts), "prompt": self.prompt.to_json(), "lines": self.lines,
            "token_ids": list(self.token_ids), "text": self.text,
        }  # fmt: skip

    @classmethod
    def from_json(cls, values: Any, path: Path) -> LayoutGolden:
        """Rebuild from `to_json` of the file `path`; KeyError, TypeError or ValueError for another form."""
        return cls(
            tuple(parse_story({"parts": values["parts"]}, path.parent, str(path))),
            LayoutPrompt.from_json(values["prompt"]),
            int(values["lines"]),
            tuple(map(int, values["token_ids"])),
            str(values["text"]),
        )


def layout_golden(bundle: Bundle) -> LayoutGolden:
    """BundleError if the bundle has none or it is of another form."""
    path = bundle.file(GOLDEN_LAYOUT)
    values = read_json(path, "golden layout")
    try:
        return LayoutGolden.from_json(values, path)
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"golden layout {path} is not of the expected form ({error!r}); {REBUILD}") from None


def play_layout(pipeline: Pipeline, golden: LayoutGolden) -> WrittenLayout:
    """The layout that this device writes of the same parts, after the same examples."""
    watch = Stopwatch()
    context = pipeline.read(pipeline.prompts.build(golden.parts), watch)
    grounder = InContextGrounder.of(pipeline.bundle, pipeline.stages, pipeline.prompts, golden.prompt)
    return grounder.ground(context.told, watch, golden.lines)
