"""Write the table of stages of docs/method.md: `python tools/stage_table.py` (`--check` only compares)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path

from mgcc_runtime.commands.console import command, note, say
from mgcc_runtime.commands.tables import markdown_table
from mgcc_runtime.contract import Dimensions, TensorSpec, stages
from mgcc_runtime.errors import EXIT_DONE, EXIT_FAILED, InputError

PAGE = Path(__file__).parents[1] / "docs" / "method.md"
BEGIN = "<!-- stages: written by tools/stage_table.py from contract.py -->"
END = "<!-- end of stages -->"

#: The letter of each length. `layers` is left out: the caches of one layer represent all.
LETTERS = {
    "vision_px": "H_v",
    "visual_tokens": "k",
    "image_tokens": "r",
    "hidden": "D",
    "features": "D_f",
    "kv_heads": "H_kv",
    "head_dim": "d",
    "vocabulary": "V",
    "conditioning_tokens": "N_c",
    "conditioning": "D_c",
    "objects": "N",
    "phrase": "D_p",
    "latent_channels": "C",
    "latent_px": "h",
    "image_px": "H",
}
_ORDER = 2  # the story's solver; the PAGE says what the others have
_FIRST_STAND_IN = 10_000  # far above the small fixed lengths (1, 3, 4), which stay numbers


def symbolic_dimensions() -> tuple[Dimensions, dict[int, str]]:
    """Dimensions in which every length is a different number, and the letter of each number."""
    letters = {_FIRST_STAND_IN + i: letter for i, letter in enumerate(LETTERS.values())}
    lengths = dict(zip(LETTERS, letters, strict=True))
    # every stage and input: `distilled` is off, since a student lacks the guidance input
    flags = {f.name: f.name != "distilled" for f in fields(Dimensions) if f.type == "bool"}
    return Dimensions(images=1, layers=1, context=2, solver_order=_ORDER, **lengths, **flags), letters


def stage_table() -> str:
    """The table as Markdown, with the marker lines around it."""
    dimensions, letters = symbolic_dimensions()
    rows = (
        (f"`{stage.name}`", stage.meaning, _cell(stage.inputs, letters), _cell(stage.outputs, letters))
        for stage in stages(dimensions)
    )
    return "\n".join([BEGIN, *markdown_table(("stage", "what it is", "inputs", "outputs"), rows), END])


def _cell(tensors: Iterable[TensorSpec], letters: dict[int, str]) -> str:
    return "<br>".join(
        f"`{t.name.replace('.0.', '.{i}.')}` ({', '.join(_length(n, letters) for n in t.shape)})" for t in tensors
    )


def _length(entry: int | str, letters: dict[int, str]) -> str:
    return entry if isinstance(entry, str) else letters.get(entry, str(entry))


def updated(page: str) -> str:
    """`page` with the present table between its markers; InputError where the markers are gone."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        raise InputError(f"{PAGE.name} has no lines {BEGIN!r} and {END!r}; put them where the table belongs")
    return before + stage_table() + after


@command("stage_table.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Write or compare the table; returns the exit code, 1 where it is out of date."""
    parser = argparse.ArgumentParser(prog="stage_table.py", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page is out of date")
    options = parser.parse_args(arguments)
    present = PAGE.read_text(encoding="utf-8")
    wanted = updated(present)
    if options.check and present != wanted:
        say(f"{PAGE}: its table of stages is out of date; run `python tools/stage_table.py`")
        return EXIT_FAILED
    if present != wanted:
        PAGE.write_text(wanted, encoding="utf-8")
    note(f"{PAGE}: its table of stages is that of the contract")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
