"""The grounder that asks the language model itself. The worked examples are read once for a pipeline, and of a chat's
turns each once: the cache of what stands before is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mgcc_runtime.bundle.folder import Bundle
from mgcc_runtime.errors import ContextLimitError
from mgcc_runtime.in_context.files import Masks, read_examples
from mgcc_runtime.in_context.writing import WrittenLayout, write_layout
from mgcc_runtime.kv_cache import KvCache
from mgcc_runtime.layout_text import CAPTION_END, END, LayoutPrompt, one_line
from mgcc_runtime.prompt import PromptBuilder
from mgcc_runtime.stages import Floats, LlmStep, Stages
from mgcc_runtime.stopwatch import Stopwatch
from mgcc_runtime.text.context import Told, ToldPart
from mgcc_runtime.text.pieces import read_in_pieces


@dataclass(eq=False)
class InContextGrounder:
    """Of one bundle. Threads share it: what it keeps is immutable, and at worst two of them read the same."""

    stages: Stages
    prompts: PromptBuilder
    prompt: LayoutPrompt
    masks: Masks
    longest_line: int  # characters
    labels: tuple[str, ...]
    _opening: LlmStep | None = field(default=None, init=False)  # after the examples

    @classmethod
    def of(
        cls, bundle: Bundle, stages: Stages, prompts: PromptBuilder, prompt: LayoutPrompt | None = None
    ) -> InContextGrounder:
        """BundleError if the examples or the masks cannot be used. `prompt`: other examples than the bundle's."""
        rules = bundle.manifest.in_context
        assert rules is not None
        found = cls(
            stages, prompts, prompt or read_examples(bundle), Masks.load(bundle), rules.longest_line, bundle.labels()
        )
        found.lines(())  # examples that leave no room at all are refused here
        return found

    def lines(self, parts: Sequence[ToldPart | None]) -> int:
        """How many lines surely fit behind a caption of these parts (None: an image); ContextLimitError if none."""
        d = self.stages.dimensions
        pieces = [self._opening_ids(), *(self._ids(part) for part in parts), self.prompts.spell_out(CAPTION_END)]
        room = d.context - sum(map(len, pieces))
        lines = min(d.objects, (room - len(END)) // self.longest_line)  # a character may be a token
        if lines < 1:
            raise ContextLimitError(
                f"texts and layout examples leave {room} of the context's {d.context} positions, expected "
                f"{self.longest_line + len(END)} for a layout's line; shorten the texts or the examples, or choose "
                "another grounder"
            )
        return lines

    def ground(self, told: Told | None, watch: Stopwatch, most_lines: int | None = None) -> WrittenLayout:
        """The layout of a picture of what was told; ContextLimitError if that is too long."""
        lines = self.lines([part for one in _oldest_first(told) for part in one.parts])
        lines = lines if most_lines is None else min(lines, most_lines)
        caption = self._read_told(told, watch)
        start = self._read(self.prompts.embed(np.array(self.prompts.spell_out(CAPTION_END))), caption.cache, watch)

        def follow(token: int, state: LlmStep) -> LlmStep:
            with watch.measure("layout_decode"):
                return self.stages.read(self.prompts.embed(np.array([token])), state.cache)

        return write_layout(start, lines, self.masks, self.prompts.spelled, follow)

    def _read_told(self, told: Told | None, watch: Stopwatch) -> LlmStep:
        """The examples and every part, from the last place on whose cache is kept."""
        new: list[Told] = []
        place = told
        while place is not None and place.read is None:
            new.append(place)
            place = place.before
        state = self._read_opening(watch) if place is None else place.read
        assert state is not None
        for one in reversed(new):
            pieces = [self._embedded(part) for part in one.parts]
            state = self._read(np.concatenate(pieces, axis=1), state.cache, watch)
        if told is not None and new:
            told.read = state
            if place is not None:
                place.read = None  # the next turn goes on from here
        return state

    def _read_opening(self, watch: Stopwatch) -> LlmStep:
        if self._opening is None:
            empty = KvCache.empty(self.stages.dimensions)
            self._opening = self._read(self.prompts.embed(np.array(self._opening_ids())), empty, watch)
        return self._opening

    def _opening_ids(self) -> list[int]:
        return [*self.prompts.beginning, *self.prompts.spell_out(self.prompt.opening(self.labels))]

    def _ids(self, part: ToldPart | None) -> Sequence[int]:
        """Of a text; of an image as many as it takes, whatever they are."""
        if isinstance(part, str):
            return self.prompts.spell_out(one_line(part))
        opening, closing = self.prompts.image_marks
        return [*opening, *[0] * self.stages.dimensions.visual_tokens, *closing]

    def _embedded(self, part: ToldPart) -> Floats:
        if isinstance(part, str):
            return self.prompts.embed(np.array(self._ids(part)))
        opening, closing = (self.prompts.embed(ids) for ids in self.prompts.image_marks)
        return np.concatenate([opening, part[None], closing], axis=1)

    def _read(self, embeddings: Floats, cache: KvCache, watch: Stopwatch) -> LlmStep:
        return read_in_pieces(self.stages, embeddings, cache, watch, "layout_prefill")


def _oldest_first(told: Told | None) -> Iterator[Told]:
    found: list[Told] = []
    while told is not None:
        found.append(told)
        told = told.before
    return reversed(found)
