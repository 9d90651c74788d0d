"""Draw the pictures that the demo's story shows: `python tools/make_demo_inputs.py` writes them to examples/demo."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from mgcc_ref.story.world.scene import Background, Scene, place, render
from mgcc_runtime.commands.console import command, note
from mgcc_runtime.errors import EXIT_DONE

FOLDER = Path(__file__).parents[1] / "examples" / "demo"

SCENES = {
    # who "my friend" is, and where the story begins
    "friend.png": Scene(Background.MEADOW, (place("fox", (0.52, 0.60), 44),)),
    # where they went, and who came along
    "trip.png": Scene(
        Background.BEACH,
        (
            place("fox", (0.20, 0.80), 44),
            place("balloon", (0.20, 0.36), 40),
            place("penguin", (0.76, 0.74), 42),
        ),
    ),
}


def picture(name: str) -> Image.Image:
    """The picture of that file name, 128x128 RGB."""
    return Image.fromarray(render(SCENES[name]))


@command("make_demo_inputs.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw them; returns the exit code."""
    parser = argparse.ArgumentParser(prog="make_demo_inputs.py", description=__doc__)
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR")
    out = parser.parse_args(arguments).out
    for name in SCENES:
        picture(name).save(out / name, optimize=True)
        note(str(out / name))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
