"""`python -m mgcc_ref.story`: a contact sheet of stories, or how fast scenes and stories are made."""

from __future__ import annotations

import argparse
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mgcc_ref.story.captions import canonical_caption
from mgcc_ref.story.dialogues import Dialogue, make_dialogue
from mgcc_ref.story.stories import Story, make_story
from mgcc_ref.story.wording.phrases import Split
from mgcc_ref.story.world.scene import IMAGE_PX, Scene, random_scene, render
from mgcc_runtime.commands.console import command, give, note
from mgcc_runtime.errors import EXIT_DONE

_CELL_PX = 176
_TEXT_LINES = 7
_LINE_PX = 12
_MARGIN_PX = 8
_FONT_PX = 11


_NAME = "python -m mgcc_ref.story"


@command(_NAME)
def main(arguments: Sequence[str] | None = None) -> int:
    """Parse `arguments` and run the command; returns the exit code (see `mgcc_runtime.commands.console`)."""
    parser = argparse.ArgumentParser(
        prog=_NAME, description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--sheet", type=Path, help="write a contact sheet to this PNG file")
    parser.add_argument("--stories", type=int, default=4, help="stories on the sheet, one a row")
    parser.add_argument("--dialogues", type=int, default=0, help="dialogues on the sheet, below the stories")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first story")
    parser.add_argument("--split", type=Split, choices=list(Split), default=Split.TRAIN, help="which phrasings")
    parser.add_argument("--speed", action="store_true", help="print scenes, pictures and stories a second")
    parser.add_argument("--count", type=int, default=300, help="how many are made to find a speed")
    options = parser.parse_args(arguments)
    if options.sheet is None and not options.speed:
        parser.error("nothing to do; give --sheet FILE.png or --speed")
    if options.stories < 0 or options.dialogues < 0 or options.stories + options.dialogues == 0:
        parser.error(f"cannot draw {options.stories} stories and {options.dialogues} dialogues; ask for at least one")
    if options.count < 1:
        parser.error(f"--count is {options.count}, expected a positive number")
    if options.sheet is not None:
        seeds = range(options.seed, options.seed + options.stories)
        rows = [_story_row(make_story(seed, options.split)) for seed in seeds]
        seeds = range(options.seed, options.seed + options.dialogues)
        rows += [_dialogue_row(make_dialogue(seed, options.split)) for seed in seeds]
        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(rows).save(options.sheet)
        note(str(options.sheet))
    if options.speed:
        _give_speed(options.count)
    return EXIT_DONE


Cell = tuple[Scene | None, str]


def contact_sheet(rows: list[list[Cell]]) -> Image.Image:
    """Rows of pictures, each with its wrapped text below."""
    columns = max(len(row) for row in rows)
    height = IMAGE_PX + _TEXT_LINES * _LINE_PX + 2 * _MARGIN_PX
    sheet = Image.new("RGB", (columns * _CELL_PX, len(rows) * height), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_PX)
    for y, row in enumerate(rows):
        for x, (scene, text) in enumerate(row):
            left, top = x * _CELL_PX + _MARGIN_PX, y * height + _MARGIN_PX
            if scene is not None:
                sheet.paste(Image.fromarray(render(scene)), (left, top))
                top += IMAGE_PX + 2
            for i, line in enumerate(textwrap.wrap(text, 29)):
                draw.text((left, top + i * _LINE_PX), line, fill="black", font=font)
    return sheet


def _story_row(story: Story) -> list[Cell]:
    """The five turns, then the target's canonical caption."""
    cells: list[Cell] = [(turn.scene, f"{i}. {turn.caption}") for i, turn in enumerate(story.turns, 1)]
    return [*cells, (None, canonical_caption(story.target))]


def _dialogue_row(dialogue: Dialogue) -> list[Cell]:
    texts = [r.text for r in dialogue.rounds]
    cells: list[Cell] = [(None, " ".join(texts[i : i + 3])) for i in range(0, len(texts), 3)]
    return [*cells, (dialogue.target, canonical_caption(dialogue.target))]


def _give_speed(count: int) -> None:
    """Print speeds: each is the best of three runs, after one run that fills the sprite cache."""
    rng = np.random.default_rng(0)
    tasks: dict[str, Callable[[int], object]] = {
        "scenes": lambda _: random_scene(rng),
        "pictures": lambda _: render(random_scene(rng)),
        "stories": make_story,
        "stories (validation)": lambda seed: make_story(seed, Split.VALIDATION),
        "dialogues": make_dialogue,
    }
    for name, make in tasks.items():
        give(f"{name}: {max(_rate(make, count) for _ in range(4)):.0f} a second")


def _rate(make: Callable[[int], object], count: int) -> float:
    started = time.perf_counter()
    for seed in range(count):
        make(seed)
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    sys.exit(main())
