"""VIST's official file by GILL's rules, each of them and its other side."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mgcc_benchmarks.paper.items import Item, PictureFolder
from mgcc_benchmarks.paper.protocol import (
    VIST,
    Images,
    Known,
    Missing,
    Order,
    Results,
    Text,
    VistProtocol,
    with_switches,
)
from mgcc_benchmarks.paper.vist import VistSetting, read_vist, vist_items
from mgcc_runtime.errors import InputError, OptionError
from tests.benchmarks.paper.datasets import vist_annotation, vist_file, write_vist
from tests.oddities import BY_NAME, check_sentence

GILL, ALL = VIST[Known.GILL], VistSetting.CAPTIONS_5_IMAGES_4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_vist(tmp_path_factory.mktemp("vist"))


def items(data: tuple[Path, Path], protocol: VistProtocol = GILL, setting: VistSetting = ALL) -> dict[str, Item]:
    found = vist_items(read_vist(data[0]), PictureFolder.by_stem(data[1]), protocol, setting)
    return {item.name: item for item in found}


def shown(item: Item) -> list[str]:
    return [part if isinstance(part, str) else part.name for part in item.parts]


def test_gills_items(data: tuple[Path, Path]) -> None:
    """Caption, picture, ... caption: in the file's order, from `text`, skipping what lacks a shown picture."""
    found = items(data)
    assert list(found) == ["100", "101", "102", "103", "104", "105"]
    assert shown(found["101"]) == [
        "story 101 sentence 0 .", "6.png", "story 101 sentence 1 .", "7.jpg", "story 101 sentence 2 .", "8.png",
        "story 101 sentence 3 .", "9.png", "story 101 sentence 4 .",
    ]  # fmt: skip
    assert shown(found["103"])[:4] == ["story 103 sentence 1 .", "13.png", "story 103 sentence 0 .", "12.png"]
    assert {name: item.result for name, item in found.items()} == {
        "100": "5", "101": "5", "102": "11", "103": "16", "104": "5", "105": "21",
    }  # fmt: skip
    skipped = "a shown picture is missing"
    assert {n: i.skipped for n, i in found.items() if i.skipped} == {"102": skipped, "104": skipped}
    assert [i.truth.name if i.truth else None for i in found.values()] == [
        "5.jpg", "5.jpg", "11.png", "16.png", "5.jpg", None,
    ]  # fmt: skip


def test_each_switch(data: tuple[Path, Path]) -> None:
    assert shown(items(data, replace(GILL, text=Text.ORIGINAL_TEXT))["100"])[0] == "Story 100 sentence 0!"
    arranged = shown(items(data, replace(GILL, order=Order.ARRANGED))["103"])
    assert arranged[:3] == ["story 103 sentence 0 .", "12.png", "story 103 sentence 1 ."]
    unlinked = items(data, replace(GILL, images=Images.ANY))
    assert unlinked["102"].skipped == "" and unlinked["104"].skipped
    partly = items(data, replace(GILL, missing=Missing.LEAVE_OUT))["104"]
    assert partly.skipped == "" and shown(partly)[:3] == ["story 104 sentence 0 .", "story 104 sentence 1 .", "2.png"]
    named = items(data, replace(GILL, results=Results.ITEM))
    assert [item.result for item in named.values()] == [*named]


def test_settings(data: tuple[Path, Path]) -> None:
    """Without pictures in the prompt none can be missing."""
    one = items(data, setting=VistSetting.CAPTION_1)
    assert [shown(item) for item in one.values()][:2] == [["story 100 sentence 4 ."], ["story 101 sentence 4 ."]]
    five = items(data, setting=VistSetting.CAPTIONS_5)
    assert shown(five["104"]) == [f"story 104 sentence {i} ." for i in range(5)]
    assert not any(item.skipped for item in (*one.values(), *five.values()))


def test_switches_by_their_names() -> None:
    changed = with_switches(GILL, ["results=item", "noise=item"])
    assert changed == replace(GILL, results=Results.ITEM, noise=type(GILL.noise).ITEM)
    with pytest.raises(OptionError, match="--switch results is 'both', expected last_picture or item; choose one"):
        with_switches(GILL, ["results=both"])
    with pytest.raises(OptionError, match="expected one of text, order, images, fit, turn, missing, results"):
        with_switches(GILL, ["prompt=caption"])


def test_a_story_of_another_length_is_skipped_where_it_is_shown_whole(tmp_path: Path) -> None:
    short = [vist_annotation("9", "1", i, "x") for i in range(4)]
    path = vist_file(tmp_path / "v.json", short, ["1"])
    for setting, said in (("5", "4 sentences, expected 5"), ("1", "")):
        (item,) = vist_items(read_vist(path), PictureFolder({}), GILL, VistSetting(setting))
        assert item.skipped == said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda v: v.pop("annotations"), "lacks annotations; give the official file"),
        (lambda v: v["annotations"][1].append({}), "at annotations[1], expected a list of one annotation; correct it"),
        (lambda v: v["annotations"][2][0].pop("text"), "lacks annotations[2][0].text; give the official file"),
        (lambda v: v["annotations"][0][0].update(text=5), "has 5 at annotations[0][0].text, expected a text"),
        (lambda v: v["annotations"][0][0].update(story_id="../x"), "story_id, expected an id of letters, digits"),
        (lambda v: v["annotations"][0][0].update(photo_flickr_id="a/b"), "photo_flickr_id, expected an id of letters"),
        (lambda v: v["annotations"][0][0].update(worker_arranged_photo_order=None), "has None at annotations[0][0]"),
        (lambda v: v.update(images=7), "has 7 at images, expected a list"),
    ],
)
def test_a_file_that_is_not_as_it_should_be(data: tuple[Path, Path], tmp_path: Path, change, said: str) -> None:
    values = json.loads(data[0].read_text())
    change(values)
    (path := tmp_path / "spoilt.json").write_text(json.dumps(values))
    with pytest.raises(InputError) as caught:
        read_vist(path)
    check_sentence(caught.value)
    assert said in str(caught.value)


@BY_NAME
def test_every_oddity_of_bytes(data: tuple[Path, Path], tmp_path: Path, oddity) -> None:
    (path := tmp_path / "odd.json").write_bytes(oddity.spoil(json.loads(data[0].read_text())))
    try:
        assert read_vist(path) == read_vist(data[0])
    except InputError as error:
        assert not oddity.taken
        check_sentence(error)


def test_there_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read \\(No such file or directory\\); give the official JSON file"):
        read_vist(tmp_path / "none.json")
    with pytest.raises(InputError, match="give the folder of the pictures"):
        PictureFolder.by_stem(tmp_path / "none")
