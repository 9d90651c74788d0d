"""Flickr30k Entities: `Sentences/ID.txt`, `Annotations/ID.xml`, `SPLIT.txt`, and the pictures in `flickr30k-images/`.

A sentence is `[/EN#7/people An older man] in [/EN#8/clothing a red shirt] .`; the boxes of 7 and 8 are in the .xml.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mgcc_ref.train.data.sample import Box, DataError, Phrase, Sample, Span, as_text, read_bytes

SPLIT = "train"
PICTURES = "flickr30k-images"
_CHAIN = re.compile(r"\[/EN#(\d+)(?:/\w+)+ ([^\[\]]+)\]")
_SENTENCES = 5  # of each picture
_KEPT = 64  # pictures with their lists in memory


@dataclass(frozen=True)
class Sentence:
    """A caption without its marks, and the characters of each entity."""

    text: str
    entities: tuple[tuple[str, Span], ...]


class Flickr30kEntities:
    """Five samples a picture, in the order of the split's file."""

    def __init__(self, folder: Path, split: str = SPLIT, pictures: Path | None = None) -> None:
        self.folder, self.pictures = folder, pictures or folder / PICTURES
        if not self.pictures.is_dir():
            raise DataError(f"Flickr30k's pictures are not in {self.pictures}, no folder; give it as --pictures")
        listed = folder / f"{split}.txt"
        self._ids = as_text(read_bytes(listed, "Flickr30k Entities' split"), str(listed)).split()
        if not self._ids:
            raise DataError(f"{listed} names no picture; copy it again")
        self.record = lru_cache(_KEPT)(self._record)

    def __len__(self) -> int:
        return _SENTENCES * len(self._ids)

    def __getitem__(self, index: int) -> Sample:
        number = self._ids[index // _SENTENCES]
        sentences, boxes = self.record(number)
        sentence = sentences[index % _SENTENCES % len(sentences)]  # a few pictures have fewer
        phrases = [
            Phrase(sentence.text[span[0] : span[1]], box, span)
            for entity, span in sentence.entities
            for box in boxes.get(entity, ())
        ]
        picture = self.pictures / f"{number}.jpg"
        return Sample(picture.name, sentence.text, picture.read_bytes, tuple(phrases))

    def _record(self, number: str) -> tuple[list[Sentence], dict[str, list[Box]]]:
        told = self.folder / "Sentences" / f"{number}.txt"
        lines = as_text(read_bytes(told, "sentences"), str(told)).splitlines()
        sentences = [read_sentence(line, str(told)) for line in lines if line.strip()]
        if not sentences:
            raise DataError(f"{told} is empty, expected the picture's sentences; copy it again")
        return sentences, read_boxes(self.folder / "Annotations" / f"{number}.xml")


def read_sentence(line: str, where: str) -> Sentence:
    """A line of Sentences/ID.txt. DataError if its marks are not in pairs."""
    text, entities, end = "", [], 0
    for mark in _CHAIN.finditer(line):
        text += line[end : mark.start()]
        entities.append((mark[1], (len(text), len(text) + len(mark[2]))))
        text, end = text + mark[2], mark.end()
    text += line[end:]
    if "[/EN#" in text or "[/" in text:
        raise DataError(f"{where} has a mark that is not of the form [/EN#ID/KIND words]: {line[:60]!r}; copy it again")
    lead = len(text) - len(text.lstrip())
    return Sentence(text.strip(), tuple((entity, (a - lead, b - lead)) for entity, (a, b) in entities))


def read_boxes(path: Path) -> dict[str, list[Box]]:
    """Entity -> its boxes, of Annotations/ID.xml; pixels count from 1. DataError if it is of another form."""
    root, found = _root(path), dict[str, list[Box]]()
    try:
        width, height = (float(root.findtext(f"size/{side}", "")) for side in ("width", "height"))
        for thing in root.iterfind("object"):
            if (corners := thing.find("bndbox")) is None:
                continue  # a scene, or an entity that is not visible
            x0, y0, x1, y1 = (float(corners.findtext(side, "")) - 1 for side in ("xmin", "ymin", "xmax", "ymax"))
            box = (max(x0 / width, 0.0), max(y0 / height, 0.0), min(x1 / width, 1.0), min(y1 / height, 1.0))
            if box[0] >= box[2] or box[1] >= box[3]:
                continue  # some boxes have no area
            for name in thing.iterfind("name"):
                found.setdefault(str(name.text), []).append(box)
    except (ValueError, ZeroDivisionError) as error:
        raise DataError(f"{path} lacks a number in its size or a box ({error}); copy it again") from error
    return found


def _root(path: Path) -> ET.Element:
    data = read_bytes(path, "annotations")
    if b"<!" in data.replace(b"<!--", b""):  # no entities are expanded: the format has no declarations
        raise DataError(f"{path} declares a document type, which Flickr30k Entities' files do not; copy it again")
    try:
        root = ET.fromstring(data)  # noqa: S314 - without declarations there is nothing to expand
    except ET.ParseError as error:
        raise DataError(f"{path} is not valid XML ({error}); copy it again") from error
    if root.tag != "annotation":
        raise DataError(f"{path} is a <{root.tag}>, expected an <annotation>; give Flickr30k Entities' own")
    return root
