"""Draw the pictures that the demo's story shows: `python tools/make_demo_inputs.py` writes them to examples/demo."""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image

from mgcc_ref.story.scene import Background, Scene, place, render

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


def main() -> int:
    for name in SCENES:
        picture(name).save(FOLDER / name, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
