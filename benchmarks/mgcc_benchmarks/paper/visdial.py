"""VisDial 1.0 (Das et al. 2017): `visdial_1.0_{val,test}.json`; the picture that a dialogue is about is drawn."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

from mgcc_benchmarks.paper.items import Item, PictureFolder, Place, read_dataset
from mgcc_benchmarks.paper.protocol import Prompt, VisdialProtocol

WHAT = "VisDial dialogues"
ID_DIGITS = 12  # VisualDialog_val2018_000000123456.jpg


class VisdialSetting(enum.StrEnum):
    """How many rounds are shown, from the first on. Only ten are in GILL's code."""

    ROUNDS_1 = "1"
    ROUNDS_5 = "5"
    ROUNDS_10 = "10"


@dataclass(frozen=True)
class Dialogue:
    image_id: int
    caption: str
    rounds: tuple[tuple[str, str], ...]  # question, answer; a last question without an answer is left out


def read_visdial(path: Path) -> list[Dialogue]:
    """The official file. InputError names the place of a wrong value."""
    data = Place(read_dataset(path, WHAT), f"{WHAT} {path}").key("data")
    questions = [place.text() for place in data.key("questions").list()]
    answers = [place.text() for place in data.key("answers").list()]
    found, seen = [], set()
    for entry in data.key("dialogs").list():
        image_id = entry.key("image_id").whole()
        if not 0 <= image_id < 10**ID_DIGITS or image_id in seen:
            raise entry.key("image_id").wrong(f"an id of at most {ID_DIGITS} digits that no other dialogue has")
        seen.add(image_id)
        rounds = tuple(
            (one.key("question").index_of(questions), one.key("answer").index_of(answers))
            for one in entry.key("dialog").list()
            if one.has("answer")  # those of the test split end with an open question
        )
        found.append(Dialogue(image_id, entry.key("caption").text(), rounds))
    return found


def visdial_items(
    dialogues: list[Dialogue], pictures: PictureFolder, protocol: VisdialProtocol, setting: VisdialSetting
) -> list[Item]:
    """Every dialogue in the file's order, including those that are skipped."""
    return [_item(one, pictures.files.get(str(one.image_id)), protocol, int(setting.value)) for one in dialogues]


def _item(dialogue: Dialogue, truth: Path | None, protocol: VisdialProtocol, rounds: int) -> Item:
    shown = dialogue.rounds[:rounds]
    lines = [line for question, answer in shown for line in (f"Q: {question}?", f"A: {answer}")]
    if protocol.prompt is not Prompt.ROUNDS:
        lines.insert(0, dialogue.caption)
    parts: list[str | Path] = ["\n".join(lines)]
    name, skipped = f"{dialogue.image_id:0{ID_DIGITS}}", ""
    if protocol.prompt is Prompt.CAPTION_AND_PICTURE:
        parts[:0] = [truth] if truth else []
        skipped = "" if truth else "its picture is missing"
    if len(shown) < rounds:
        skipped = f"{len(shown)} rounds, expected {rounds}"
    return Item(name, name, tuple(parts), truth, skipped)
