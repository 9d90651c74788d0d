"""What a bundle holds for the layouts that its language model writes: examples, token masks, and a golden layout."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from PIL import Image

from mgcc_ref.in_context.layout import InContextLayout, WrittenLayout, in_context_layout
from mgcc_ref.in_context.token_masks import compile_masks
from mgcc_ref.model import MgccModel
from mgcc_ref.pipeline import ReferencePipeline
from mgcc_runtime.bundle.manifest import InContextRules
from mgcc_runtime.contract import Grounder
from mgcc_runtime.errors import InputError
from mgcc_runtime.in_context.files import pack_masks
from mgcc_runtime.layout_text import DEFAULT_PROMPT, LayoutPrompt
from mgcc_runtime.measure.golden_layout import LayoutGolden
from mgcc_runtime.names import GOLDEN_LAYOUT, LAYOUT_EXAMPLES, LAYOUT_MASKS
from mgcc_runtime.prompt import Part
from mgcc_runtime.reading import read_json

GOLDEN_LINES = 2  # of the golden layout: each of its tokens reads the whole language model once


def read_layout_prompt(path: Path | None) -> LayoutPrompt:
    """The examples of a file as bundles have it, ours without one; InputError."""
    if path is None:
        return DEFAULT_PROMPT
    try:
        return LayoutPrompt.from_json(read_json(path, "layout examples"))
    except ValueError as error:
        raise InputError(f"layout examples {path} cannot be used: {error}; correct the file") from None


@dataclass(frozen=True)
class InContextParts:
    """Of one model, whose profile has the in-context grounder; InputError if its language model cannot be asked."""

    model: MgccModel
    prompt: LayoutPrompt

    @classmethod
    def of(cls, model: MgccModel, path: Path | None) -> InContextParts | None:
        """None for a profile without that grounder. Tokenizer and examples are checked, before anything is built."""
        if Grounder.IN_CONTEXT not in model.profile.grounders:
            if path is not None:
                raise InputError(
                    f"--layout-examples {path} was given, and profile {model.profile.name} is built without the "
                    "in-context grounder; leave it out, or add --grounder in-context or both"
                )
            return None
        found = cls(model, read_layout_prompt(path))
        try:
            found.grounder.lines(())
        except ValueError as error:
            raise InputError(
                f"profile {model.profile.name} cannot have the in-context grounder ({error}); build it with --grounder "
                "layout-head, or give shorter examples with --layout-examples"
            ) from None
        return found

    @cached_property
    def grounder(self) -> InContextLayout:
        return in_context_layout(self.model, self.prompt)

    @property
    def rules(self) -> InContextRules:
        return InContextRules(self.grounder.grammar.longest_line)

    def files(self) -> dict[str, bytes]:
        """The bundle's files, by their names."""
        masks = compile_masks(self.grounder.grammar, self.grounder.trie)
        examples = json.dumps(self.prompt.to_json(), indent=1, ensure_ascii=False) + "\n"
        return {LAYOUT_EXAMPLES: examples.encode(), LAYOUT_MASKS: pack_masks(masks)}

    def golden(
        self, parts: Sequence[str | Image.Image], named: tuple[Part, ...]
    ) -> tuple[dict[str, bytes], WrittenLayout]:
        """The golden layout of a request's parts, whose pictures are files in `named`, and what the reference wrote."""
        grounder = self.grounder
        lines = min(GOLDEN_LINES, grounder.grammar.max_lines)
        few = InContextLayout(
            grounder.step, grounder.tokenizer, replace(grounder.grammar, max_lines=lines),
            max_positions=grounder.max_positions, prompt=self.prompt, marks=grounder.marks,
        )  # fmt: skip
        written = few.layout(ReferencePipeline(self.model).caption_of(parts))
        golden = LayoutGolden(named, self.prompt, lines, written.tokens, written.text)
        data = json.dumps(golden.to_json(), indent=1, ensure_ascii=False) + "\n"
        return {GOLDEN_LAYOUT: data.encode()}, written
