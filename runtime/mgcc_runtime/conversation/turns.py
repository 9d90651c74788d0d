"""The turns of a chat, and what the language model read of them: immutable, so that going back is taking an older one.

What was read can be dropped and read again. It is read in the very calls that it was read in first, turn by turn, so
that the same comes of it, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from mgcc_runtime.conversation.shelf import Kept
from mgcc_runtime.errors import InputError
from mgcc_runtime.prompt import Part, Prompt, PromptBuilder
from mgcc_runtime.request import Request
from mgcc_runtime.scene import Scene
from mgcc_runtime.stopwatch import Stopwatch
from mgcc_runtime.text.context import Context
from mgcc_runtime.text.writing import Written

if TYPE_CHECKING:
    from mgcc_runtime.pipeline import Pipeline

Turn: TypeAlias = "tuple[Part, ...]"


@dataclass(frozen=True, eq=False)
class Picture:
    """How a turn was drawn."""

    first: Request  # with its answer
    shown: Request  # when it was drawn last; its boxes have ids
    written: Written  # beside it
    scene: Kept[Scene]


@dataclass(frozen=True, eq=False)
class Past:
    """A turn that was read: as it was given, and as it is read again, whatever becomes of its files meanwhile."""

    parts: Turn
    body: Prompt  # without what stands before it
    oldest: int  # the number of the oldest turn that was known when it was answered; the chat's first turn is 0
    picture: Picture | None = None  # None: answered in words alone


@dataclass(frozen=True, eq=False)
class Memory:
    """Turns in order. The first `whole` of them were read in one go, each later one by itself."""

    turns: tuple[Past, ...]
    whole: int
    oldest: int  # the number of the first of `turns`
    context: Kept[Context]

    def positions(self, prompts: PromptBuilder) -> int:
        """Of the language model's context."""
        if not self.turns:
            return 0
        between = prompts.separator.length * (len(self.turns) - 1)
        return prompts.opening.length + sum(past.body.length for past in self.turns) + between

    def readings(self, prompts: PromptBuilder, turns: int) -> Iterator[Prompt]:
        """What is read, call by call, to know the first `turns` turns."""
        first = min(self.whole, turns)
        if not first:
            return
        pieces = [prompts.opening, self.turns[0].body]
        for past in self.turns[1:first]:
            pieces += [prompts.separator, past.body]
        yield Prompt.join(pieces)
        for past in self.turns[first:turns]:
            yield Prompt.join([prompts.separator, past.body])


def context_of(pipeline: Pipeline, memory: Memory, watch: Stopwatch) -> Context | None:
    """What was read of the turns of `memory`; read again where it is not kept, and None without turns."""
    if (kept := memory.context.get()) is not None:
        return kept
    context = _read_again(pipeline, memory, len(memory.turns), watch)
    if context is not None:
        memory.context.put(context, context.nbytes)
    return context


def scene_of(pipeline: Pipeline, memory: Memory, index: int, watch: Stopwatch) -> Scene:
    """The scene of a turn's picture as it was drawn last; InputError if it has none, or none can be made again."""
    past = memory.turns[index]
    if (picture := past.picture) is None:
        raise InputError(f"turn {index + 1} was answered in words alone, expected one with a picture; choose another")
    if (scene := picture.scene.get()) is not None:
        return scene
    if past.oldest != memory.oldest:
        raise InputError(
            f"turn {index + 1} was drawn after turns that are forgotten since, expected one that can be read again; "
            "choose a later one"
        )
    context = _read_again(pipeline, memory, index + 1, watch)
    assert context is not None
    asked = pipeline.read(pipeline.prompts.closing, watch, context)
    layout = pipeline.imagining.arrange(asked, picture.first, watch)
    scene = pipeline.imagining.scene(asked, picture.first, layout, picture.written, watch)
    scene = pipeline.imagining.other(scene, picture.shown, watch)
    picture.scene.put(scene, scene.nbytes)
    return scene


def _read_again(pipeline: Pipeline, memory: Memory, turns: int, watch: Stopwatch) -> Context | None:
    context: Context | None = None
    for prompt in memory.readings(pipeline.prompts, turns):
        context = pipeline.read(prompt, watch, context)
    return context
