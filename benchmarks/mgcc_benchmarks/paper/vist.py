"""VIST (Huang et al. 2016): `{train,val,test}.story-in-sequence.json`; the fifth picture of each story is drawn."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mgcc_benchmarks.paper.items import Item, PictureFolder, Place, read_dataset
from mgcc_benchmarks.paper.protocol import Images, Missing, Order, Results, Text, VistProtocol

SENTENCES = 5
WHAT = "VIST annotations"


class VistSetting(enum.StrEnum):
    """How much of a story is shown. Only the last is in GILL's code; the other two are as its paper describes them."""

    CAPTION_1 = "1"  # the last caption alone
    CAPTIONS_5 = "5"
    CAPTIONS_5_IMAGES_4 = "5+4"  # c1, i1 ... c4, i4, c5


@dataclass(frozen=True)
class Sentence:
    """One annotation: a sentence of a story and its picture's id."""

    text: str
    original_text: str
    picture: str
    order: int


@dataclass(frozen=True)
class Vist:
    """The stories by id, with sentences in the file's order; and the ids of pictures that have a link."""

    stories: dict[str, tuple[Sentence, ...]]
    linked: frozenset[str]


def read_vist(path: Path) -> Vist:
    """The official file. InputError names the place of a wrong value."""
    top = Place(read_dataset(path, WHAT), f"{WHAT} {path}")
    stories: dict[str, list[Sentence]] = {}
    for entry in top.key("annotations").list():
        held = entry.list()
        if len(held) != 1:
            raise entry.wrong("a list of one annotation")
        one = held[0]
        sentence = Sentence(
            one.key("text").text(), one.key("original_text").text(), one.key("photo_flickr_id").name(),
            one.key("worker_arranged_photo_order").whole(),
        )  # fmt: skip
        stories.setdefault(one.key("story_id").name(), []).append(sentence)
    linked = frozenset(image.key("id").name() for image in top.key("images").list() if image.has("url_o"))
    return Vist({name: tuple(sentences) for name, sentences in stories.items()}, linked)


def vist_items(vist: Vist, pictures: PictureFolder, protocol: VistProtocol, setting: VistSetting) -> list[Item]:
    """Every story in the file's order, including those that are skipped."""
    return [
        _item(name, _ordered(sentences, protocol.order), _there(vist, pictures, protocol), protocol, setting)
        for name, sentences in vist.stories.items()
    ]


def _ordered(sentences: Sequence[Sentence], order: Order) -> Sequence[Sentence]:
    return sentences if order is Order.FILE else sorted(sentences, key=lambda s: s.order)


def _there(vist: Vist, pictures: PictureFolder, protocol: VistProtocol) -> PictureFolder:
    if protocol.images is Images.ANY:
        return pictures
    return PictureFolder({key: path for key, path in pictures.files.items() if key in vist.linked})


def _item(
    name: str, sentences: Sequence[Sentence], there: PictureFolder, protocol: VistProtocol, setting: VistSetting
) -> Item:
    last = sentences[-1].picture
    texts = [s.original_text if protocol.text is Text.ORIGINAL_TEXT else s.text for s in sentences]
    parts: list[str | Path] = []
    missing: list[str] = []
    if setting is VistSetting.CAPTION_1:
        parts.append(texts[-1])
    else:
        for text, sentence in zip(texts, sentences, strict=True):
            parts.append(text)
            if setting is VistSetting.CAPTIONS_5_IMAGES_4 and sentence is not sentences[-1]:
                found = there.files.get(sentence.picture)
                missing += [] if found else [sentence.picture]
                parts += [found] if found else []
    skipped = ""
    if len(sentences) != SENTENCES and setting is not VistSetting.CAPTION_1:
        skipped = f"{len(sentences)} sentences, expected {SENTENCES}"
    elif missing and protocol.missing is Missing.SKIP:
        skipped = "a shown picture is missing"
    result = last if protocol.results is Results.LAST_PICTURE else name
    return Item(name, result, tuple(parts), there.files.get(last), skipped)
