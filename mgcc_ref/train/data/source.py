"""`--data FORMAT=PLACE`: a data set's format and path."""

from __future__ import annotations

import argparse
import enum
from dataclasses import dataclass
from pathlib import Path

from mgcc_ref.train.data import coco, flickr30k
from mgcc_ref.train.data.cc3m import CaptionTable
from mgcc_ref.train.data.coco import Coco
from mgcc_ref.train.data.flickr30k import Flickr30kEntities
from mgcc_ref.train.data.sample import DataError, Samples
from mgcc_ref.train.data.shards import Shards


class DataFormat(enum.StrEnum):
    CC3M = "cc3m"  # a .tsv
    WEBDATASET = "webdataset"  # a .tar, or a folder of them
    COCO = "coco"  # the folder with annotations/
    FLICKR30K = "flickr30k"  # the folder with Sentences/ and Annotations/


@dataclass(frozen=True)
class DataSource:
    format: DataFormat
    place: Path
    pictures: Path | None = None  # None: the format's own folder
    split: str | None = None  # None: the format's training split

    @property
    def named(self) -> str:
        """The source's text in a run's settings."""
        return f"{self.format}={self.place}{f' {self.split}' if self.split else ''}"


def data_argument(text: str) -> DataSource:
    """The command line's `FORMAT=PLACE`."""
    name, equals, place = text.partition("=")
    if name not in {*DataFormat} or not equals or not place:
        raise argparse.ArgumentTypeError(f"{text!r} is not FORMAT=PLACE with a format of {', '.join(DataFormat)}")
    return DataSource(DataFormat(name), Path(place))


def open_samples(source: DataSource) -> Samples:
    """Open a data set; pictures are read later. DataError if it is not in its official form."""
    pictures, split = source.pictures, source.split
    if source.format is DataFormat.CC3M:
        _refuse(split, "--split", source)
        return CaptionTable(source.place, pictures or source.place.parent / "training")
    if source.format is DataFormat.WEBDATASET:
        _refuse(split, "--split", source)
        _refuse(pictures, "--pictures", source)
        return Shards(source.place)
    if source.format is DataFormat.COCO:
        return Coco(source.place, split or coco.SPLIT, pictures)
    return Flickr30kEntities(source.place, split or flickr30k.SPLIT, pictures)


def _refuse(value: object, option: str, source: DataSource) -> None:
    if value is not None:
        raise DataError(f"{option} is {value}, and {source.format} has no such thing; leave it out")
