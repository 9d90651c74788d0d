"""VisDial's official file by GILL's rules."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mgcc_benchmarks.paper.items import Item, PictureFolder
from mgcc_benchmarks.paper.protocol import VISDIAL, Known, Prompt, VisdialProtocol
from mgcc_benchmarks.paper.visdial import ID_DIGITS, VisdialSetting, read_visdial, visdial_items
from mgcc_runtime.errors import InputError
from tests.benchmarks.paper.datasets import write_visdial
from tests.oddities import check_sentence

GILL = VISDIAL[Known.GILL]


def items(
    data: tuple[Path, Path], protocol: VisdialProtocol = GILL, setting: VisdialSetting = VisdialSetting.ROUNDS_10
) -> list[Item]:
    return visdial_items(read_visdial(data[0]), PictureFolder.by_digits(data[1], ID_DIGITS), protocol, setting)


def test_gills_prompt_is_the_rounds_alone(tmp_path: Path) -> None:
    data = write_visdial(tmp_path)
    found = items(data)
    assert [item.name for item in found] == ["000000284024", "000000185565", "000000000007"]
    assert [item.result for item in found] == [item.name for item in found]
    assert [item.truth.name if item.truth else None for item in found] == [
        "VisualDialog_val2018_000000284024.jpg", None, "VisualDialog_val2018_000000000007.jpg",
    ]  # fmt: skip
    (text,) = found[0].parts
    lines = str(text).split("\n")
    assert lines[:4] == ["Q: is it sunny?", "A: yes", "Q: how many people are there?", "A: 2"] and len(lines) == 20
    (text,) = items(data, setting=VisdialSetting.ROUNDS_1)[0].parts
    assert text == "Q: is it sunny?\nA: yes"
    (text,) = items(data, setting=VisdialSetting.ROUNDS_5)[0].parts
    assert str(text).count("\n") == 9
    assert not any(item.skipped for item in found)


def test_the_caption_and_the_picture_by_their_switch(tmp_path: Path) -> None:
    data = write_visdial(tmp_path)
    (text,) = items(data, replace(GILL, prompt=Prompt.CAPTION), VisdialSetting.ROUNDS_1)[0].parts
    assert text == "a picture of 284024\nQ: is it sunny?\nA: yes"
    first, second, _ = items(data, replace(GILL, prompt=Prompt.CAPTION_AND_PICTURE), VisdialSetting.ROUNDS_1)
    assert first.parts == (first.truth, text)
    assert second.skipped == "its picture is missing"


def test_shorter_dialogues_and_open_questions(tmp_path: Path) -> None:
    """As in the test split: the last question has no answer yet."""
    path, pictures = write_visdial(tmp_path, {3: 2, 4: 10})
    values = json.loads(path.read_text())
    del values["data"]["dialogs"][0]["dialog"][1]["answer"]
    path.write_text(json.dumps(values))
    first, second = items((path, pictures), setting=VisdialSetting.ROUNDS_5)
    assert first.skipped == "1 rounds, expected 5" and not second.skipped


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["dialogs"][0]["dialog"][3].update(question=9), "expected the place of one of 3 texts; correct it"),
        (lambda d: d["dialogs"][0]["dialog"][3].update(answer=-1), "has -1 at data.dialogs[0].dialog[3].answer"),
        (lambda d: d["dialogs"][1].update(image_id=284024), "that no other dialogue has; correct it"),
        (lambda d: d["dialogs"][1].update(image_id=10**12), "an id of at most 12 digits"),
        (lambda d: d["questions"].append(None), "has None at data.questions[3], expected a text"),
        (lambda d: d.pop("answers"), "lacks data.answers; give the official file"),
    ],
)
def test_a_file_that_is_not_as_it_should_be(tmp_path: Path, change, said: str) -> None:
    path, _ = write_visdial(tmp_path)
    values = json.loads(path.read_text())
    change(values["data"])
    path.write_text(json.dumps(values))
    with pytest.raises(InputError) as caught:
        read_visdial(path)
    check_sentence(caught.value)
    assert said in str(caught.value)
