"""Drawing into a folder: what stays under which name, whatever was killed and however the work is shared out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mgcc_benchmarks.paper.drawing import PICTURES, Draughtsman, Shard, begin_run, drawings
from mgcc_benchmarks.paper.items import Item, PictureFolder
from mgcc_benchmarks.paper.pictures import open_picture
from mgcc_benchmarks.paper.protocol import VIST, Fit, Known, Noise, Turn
from mgcc_benchmarks.paper.vist import VistSetting, read_vist, vist_items
from mgcc_runtime.errors import ImageError, InputError, OptionError, PromptError
from tests.benchmarks.paper.datasets import noise_picture, write_vist

GILL = VIST[Known.GILL]


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    path, pictures = write_vist(tmp_path)
    return vist_items(read_vist(path), PictureFolder.by_stem(pictures), GILL, VistSetting.CAPTIONS_5_IMAGES_4)


class Colours:
    """Draws one colour, of what it was given: what is right is known without a model."""

    identity = "colours"

    def __init__(self, dies_after: int = 1000, refuses: str = "nothing") -> None:
        self.drawn: list[tuple[str, int]] = []
        self._left, self._refuses = dies_after, refuses

    def draw(self, parts: Sequence[str | Image.Image], seed: int) -> Image.Image:
        if self._refuses in parts:
            raise PromptError("the prompt is too long; shorten it")
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        self.drawn.append((str(parts[-1]), seed))
        told = [part if isinstance(part, str) else hashlib.sha256(part.tobytes()).hexdigest() for part in parts]
        colour = hashlib.sha256(f"{told} {seed}".encode()).digest()
        return Image.new("RGB", (8, 8), tuple(colour[:3]))

    def __enter__(self) -> Colours:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def draw(items: Sequence[Item], folder: Path, painter: Colours, noise: Noise = Noise.RUNNING) -> dict[str, str]:
    wanted = drawings(items, noise, 42)
    return Draughtsman(painter, GILL, folder / PICTURES).draw_all(wanted)


def pictures_in(folder: Path) -> dict[str, bytes]:
    return {path.stem: Image.open(path).tobytes() for path in (folder / PICTURES).iterdir()}


def test_of_two_stories_with_one_last_picture_the_later_stays(items: list[Item], tmp_path: Path) -> None:
    painter = Colours()
    assert draw(items, tmp_path / "a", painter) == {}
    assert set(pictures_in(tmp_path / "a")) == {"5", "16", "21"}
    assert [text for text, _ in painter.drawn] == [f"story {n} sentence 4 ." for n in (101, 103, 105)]


def test_the_running_noise_is_that_of_a_run_over_all(items: list[Item], tmp_path: Path) -> None:
    """100, 101, 103 and 105 are drawn, in this order: the first one's noise is spent though its picture is lost."""
    painter = Colours()
    draw(items, tmp_path, painter)
    spent = np.random.default_rng(42).integers(2**63 - 1, size=4).tolist()
    assert [seed for _, seed in painter.drawn] == spent[1:]


def test_an_items_own_noise_hangs_on_nothing_else(items: list[Item], tmp_path: Path) -> None:
    own = {n: d[-1].seed for n, d in drawings(items, Noise.ITEM, 42).items()}
    assert {n: d[-1].seed for n, d in drawings(items[::-1][:4], Noise.ITEM, 42).items() if n != "5"} == {
        n: seed for n, seed in own.items() if n != "5"
    }
    assert len({*own.values(), *(d[-1].seed for d in drawings(items, Noise.ITEM, 43).values())}) == 6
    running = {n: d[-1].seed for n, d in drawings(items[1:], Noise.RUNNING, 42).items()}
    assert running != {n: d[-1].seed for n, d in drawings(items, Noise.RUNNING, 42).items()}


def test_a_killed_run_goes_on_and_shards_add_up(items: list[Item], tmp_path: Path) -> None:
    draw(items, tmp_path / "whole", Colours())
    with pytest.raises(KeyboardInterrupt):
        draw(items, tmp_path / "killed", Colours(dies_after=1))
    assert set(pictures_in(tmp_path / "killed")) == {"5"}
    (tmp_path / "killed" / PICTURES / "16.png").write_bytes(b"\x89PNG\r\n")  # half a file
    again = Colours()
    draw(items, tmp_path / "killed", again)
    assert len(again.drawn) == 2 and pictures_in(tmp_path / "killed") == pictures_in(tmp_path / "whole")
    for number in (2, 1):
        mine = Shard(number, 2).results(items)
        wanted = {n: d for n, d in drawings(items, Noise.RUNNING, 42).items() if n in mine}
        Draughtsman(Colours(), GILL, tmp_path / "shards" / PICTURES).draw_all(wanted)
    assert pictures_in(tmp_path / "shards") == pictures_in(tmp_path / "whole")
    everything = [Shard(n, 3).results(items) for n in (1, 2, 3)]
    assert set().union(*everything) == {i.result for i in items} and sum(map(len, everything)) == 4


def test_what_was_drawn_from_something_else_is_drawn_anew(items: list[Item], tmp_path: Path) -> None:
    """A picture was fetched meanwhile: 102 is no longer skipped, and the running noise of all after it is another."""
    draw(items, tmp_path, Colours())
    painter = Colours()
    draw([replace(item, skipped="") if item.name == "102" else item for item in items], tmp_path, painter)
    assert [text for text, _ in painter.drawn] == [f"story {n} sentence 4 ." for n in (102, 103, 105)]


def test_an_item_that_cannot_be_drawn_is_named_and_costs_no_other(items: list[Item], tmp_path: Path) -> None:
    """101's prompt is too long, and a picture of 103 is broken: what 100 drew then stays."""
    next(p for p in items[3].parts if isinstance(p, Path)).write_bytes(b"no picture")
    painter = Colours(refuses="story 101 sentence 4 .")
    left_out = draw(items, tmp_path, painter)
    assert set(left_out) == {"101", "103"} and "too long" in left_out["101"] and "cannot be read" in left_out["103"]
    assert [text for text, _ in painter.drawn] == ["story 100 sentence 4 .", "story 105 sentence 4 ."]
    assert draw(items, tmp_path, Colours(refuses="story 101 sentence 4 .")) == left_out  # said again, drawn once


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    begin_run(tmp_path, {"painter": "a", "seed": 1})
    begin_run(tmp_path, {"painter": "a", "seed": 1})
    with pytest.raises(InputError, match="holds pictures of a run with another painter; give another --out"):
        begin_run(tmp_path, {"painter": "b", "seed": 1})
    (tmp_path / "run.json").write_text(json.dumps([1]))
    with pytest.raises(InputError, match="holds no object, expected what its pictures are of"):
        begin_run(tmp_path, {"painter": "a", "seed": 1})


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "/2", "a/b", "1/2/3", "-1/2", "1/0"])
def test_no_shard(text: str) -> None:
    with pytest.raises(OptionError, match="expected I/N with I from 1 to N; give such as 1/4"):
        Shard.parse(text)


def test_pictures_are_squashed_and_turned_by_their_switches(tmp_path: Path) -> None:
    image = noise_picture(3, (60, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    image.save(tmp_path / "turned.png", exif=exif)
    wanted = image.resize((224, 224), Image.Resampling.BICUBIC)
    assert open_picture(tmp_path / "turned.png", GILL).tobytes() == wanted.tobytes()
    assert open_picture(tmp_path / "turned.png", replace(GILL, fit=Fit.KEEP)).size == (60, 20)
    assert open_picture(tmp_path / "turned.png", replace(GILL, fit=Fit.KEEP, turn=Turn.EXIF)).size == (20, 60)
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    kept = replace(GILL, fit=Fit.KEEP)
    assert open_picture(tmp_path / "clear.png", kept).getpixel((0, 0)) == (10, 20, 30)
    assert open_picture(tmp_path / "clear.png", replace(kept, turn=Turn.EXIF)).getpixel((0, 0)) == (255, 255, 255)
    (tmp_path / "half.png").write_bytes((tmp_path / "turned.png").read_bytes()[:200])
    for turn in Turn:
        with pytest.raises(ImageError, match=r"half\.png cannot be read"):
            open_picture(tmp_path / "half.png", replace(GILL, turn=turn))
