"""Play a story: after each text that no image follows, the next picture is drawn and becomes part of the story.

Writes turn-N.png, contact-sheet.png and result.json. Uses nothing but `mgcc_runtime` and Pillow.
"""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from mgcc_runtime import Pipeline, Result
from mgcc_runtime.commands.console import command, note
from mgcc_runtime.errors import EXIT_DONE
from mgcc_runtime.images.annotate import annotate
from mgcc_runtime.story import read_story

HERE = Path(__file__).parent
CELL_PX, MARGIN_PX, FONT_PX, LINE_PX = 384, 16, 17, 23
CHARACTERS_A_LINE = 44


@dataclass(frozen=True)
class Turn:
    """The parts that a turn adds to the story before its picture is drawn."""

    texts: tuple[str, ...]
    given: tuple[str, ...]  # image files
    parts: tuple[str | Path, ...]


@dataclass(frozen=True)
class Cell:
    """One picture of the contact sheet."""

    picture: Image.Image
    heading: str
    text: str


def read_turns(path: Path) -> Iterator[Turn]:
    """Cut a story file into turns; images are found beside it."""
    parts = read_story(path)
    pending: list[str | Path] = []
    for i, part in enumerate(parts):
        pending.append(part)
        last = i + 1 == len(parts)
        if isinstance(part, str) and (last or isinstance(parts[i + 1], str)):
            texts = tuple(p for p in pending if isinstance(p, str))
            yield Turn(texts, tuple(p.name for p in pending if isinstance(p, Path)), tuple(pending))
            pending = []


def play(pipeline: Pipeline, turns: list[Turn], *, seed: int, words: int, out: Path) -> list[Result]:
    """Draw every turn's picture from all that came before it, and save it."""
    story: list[str | Path | Image.Image] = []
    results = []
    for number, turn in enumerate(turns, 1):
        story += turn.parts
        started_s = time.perf_counter()
        result = pipeline.generate(story, seed=seed, words=words)
        story.append(result.image)
        result.image.save(out / f"turn-{number}.png")
        labels = ", ".join(box.label for box in result.boxes) or "nothing"
        note(f"turn {number} of {len(turns)}: {labels} ({time.perf_counter() - started_s:.1f} s)")
        results.append(result)
    return results


def contact_sheet(turns: list[Turn], results: list[Result], folder: Path) -> Image.Image:
    """All pictures with their boxes and texts, the given ones in front of the turn that they came with."""
    cells = []
    for number, (turn, result) in enumerate(zip(turns, results, strict=True), 1):
        for name in turn.given:
            given = Image.open(folder / name).convert("RGB").resize((CELL_PX, CELL_PX), Image.Resampling.BICUBIC)
            cells.append(Cell(given, f"given: {name}", turn.texts[0]))
        drawn = annotate(result.image, result.boxes, scale=max(1, CELL_PX // result.image.width))
        told = turn.texts[len(turn.given) :]
        answer = f"\nIt says: {result.text}" if result.text else ""
        cells.append(Cell(drawn.resize((CELL_PX, CELL_PX)), f"turn {number}: drawn", " ".join(told) + answer))
    return arrange(cells, columns=4)


def arrange(cells: list[Cell], columns: int) -> Image.Image:
    """Cells row by row on white, each picture under its heading and above its text."""
    lines = [
        [line for paragraph in cell.text.split("\n") for line in textwrap.wrap(paragraph, CHARACTERS_A_LINE)]
        for cell in cells
    ]
    height = CELL_PX + LINE_PX * (1 + max(map(len, lines))) + 2 * MARGIN_PX
    width = CELL_PX + MARGIN_PX
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * width + MARGIN_PX, rows * height + MARGIN_PX), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=FONT_PX)
    for i, cell in enumerate(cells):
        left, top = MARGIN_PX + (i % columns) * width, MARGIN_PX + (i // columns) * height
        draw.text((left, top), cell.heading, fill="#3a3244", font=font)
        sheet.paste(cell.picture, (left, top + LINE_PX))
        for row, line in enumerate(lines[i]):
            draw.text((left, top + CELL_PX + LINE_PX * (row + 1) + 6), line, fill="black", font=font)
    return sheet


def describe(bundle: Path, turns: list[Turn], results: list[Result]) -> dict[str, object]:
    """The content of result.json."""
    return {
        "bundle": str(bundle),
        "turns": [
            {
                "texts": turn.texts,
                "given": turn.given,
                "image": f"turn-{number}.png",
                "text": result.text,
                "boxes": [asdict(box) for box in result.boxes],
                "seed": result.seed,
                "timings_ms": result.timings,
            }
            for number, (turn, result) in enumerate(zip(turns, results, strict=True), 1)
        ],
    }


@command("error")
def main(arguments: Sequence[str] | None = None) -> int:
    """Play a story and keep its pictures; returns the exit code (see `mgcc_runtime.commands.console`)."""
    parser = argparse.ArgumentParser(
        prog="run_demo.py", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, default=Path("build/story-cpu-fp32"), help="folder of the bundle")
    parser.add_argument("--story", type=Path, default=HERE / "story.json", help="texts and images, in order")
    parser.add_argument("--out", type=Path, default=Path("out/demo"), help="folder for the pictures")
    parser.add_argument("--seed", type=int, default=0, help="of the first noise")
    parser.add_argument("--words", type=int, default=20, help="most words of text a turn; 0: none")
    options = parser.parse_args(arguments)
    turns = list(read_turns(options.story))
    options.out.mkdir(parents=True, exist_ok=True)
    with Pipeline.load(options.bundle) as pipeline:
        results = play(pipeline, turns, seed=options.seed, words=options.words, out=options.out)
    contact_sheet(turns, results, options.story.parent).save(options.out / "contact-sheet.png")
    description = json.dumps(describe(options.bundle, turns, results), indent=2)
    (options.out / "result.json").write_text(description + "\n", encoding="utf-8")
    note(f"\nthe story:    {options.out / 'contact-sheet.png'}")
    note(f"its pictures: {options.out / 'turn-1.png'} to turn-{len(turns)}.png")
    note(f"the details:  {options.out / 'result.json'}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
