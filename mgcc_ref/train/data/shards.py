"""WebDataset: .tar shards in which files with the same name up to the first dot are one sample.

Opening indexes the shards by their headers, and a sample is read by its offset. The library `webdataset` streams
shards instead, without access to samples by number.
"""

from __future__ import annotations

import json
import tarfile
from array import array
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from mgcc_ref.train.data.sample import DataError, Sample, as_text

PICTURES, TEXT, RECORD, TARGET = ("jpg", "jpeg", "png", "webp"), "txt", "json", "npy"

_KINDS = (*PICTURES, TEXT, RECORD, TARGET)

Place = tuple[int, int, int]  # shard, first byte, bytes


class Shards:
    """All samples of some shards, in stored order; 21 bytes of memory a file."""

    def __init__(self, place: Path) -> None:
        self.files = shard_files(place)
        shards, starts, sizes, kinds, firsts = (array(code) for code in "iqqbq")
        for number, file in enumerate(self.files):
            for name, members in _grouped(file):
                if not any(kind in members for kind in PICTURES):
                    continue  # a failed download leaves only its record
                if TEXT not in members and RECORD not in members:
                    raise DataError(
                        f"sample {name} of {file} has no caption: it has {', '.join(members)}, expected .{TEXT} or "
                        f".{RECORD} with a caption; write the shards with one of them"
                    )
                firsts.append(len(kinds))
                for kind, (start, size) in members.items():
                    if kind in _KINDS:
                        shards.append(number)
                        starts.append(start)
                        sizes.append(size)
                        kinds.append(_KINDS.index(kind))
        if not firsts:
            raise DataError(f"the shards in {place} hold no picture with a caption; give others")
        firsts.append(len(kinds))
        self._shards, self._starts, self._sizes, self._kinds, self._firsts = shards, starts, sizes, kinds, firsts

    def __len__(self) -> int:
        return len(self._firsts) - 1

    def __getitem__(self, index: int) -> Sample:
        members = {
            _KINDS[self._kinds[i]]: (self._shards[i], self._starts[i], self._sizes[i])
            for i in range(self._firsts[index], self._firsts[index + 1])
        }
        kind = next(kind for kind in PICTURES if kind in members)
        name = self._name(members[kind])
        target = self._reader(members[TARGET]) if TARGET in members else None
        return Sample(name, self._caption(name, members), self._reader(members[kind]), target=target)

    def _name(self, place: Place) -> str:
        """The file's name, from the header before it."""
        shard, start, _ = place
        header = _read(self.files[shard], start - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)
        return f"{self.files[shard].name}/{tarfile.TarInfo.frombuf(header, 'utf-8', 'replace').name}"

    def _caption(self, name: str, members: dict[str, Place]) -> str:
        kind = TEXT if TEXT in members else RECORD
        told = f"the caption of {name} (.{kind})"
        text = as_text(self._reader(members[kind])(), told).strip()
        if kind == RECORD:
            try:
                text = str(json.loads(text)["caption"]).strip()
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise DataError(f'{told} is in no object with "caption"; write it, or .{TEXT}') from error
        if not text:
            raise DataError(f"{told} is empty; write it, or take the sample out")
        return text

    def _reader(self, place: Place) -> Callable[[], bytes]:
        shard, start, size = place
        return partial(_read, self.files[shard], start, size)


def shard_files(place: Path) -> list[Path]:
    """The file `place`, or all .tar files of the folder `place`. DataError if there is none."""
    if place.is_dir():
        files = sorted(place.glob("*.tar"))
        if not files:
            held = sorted(file.name for file in place.iterdir())[:3]
            raise DataError(f"folder {place} holds no .tar{' but ' + ', '.join(held) if held else ''}; give the shards")
        return files
    if not place.is_file():
        raise DataError(f"{place} is neither a .tar nor a folder of them; give the shards")
    return [place]


def _read(file: Path, start: int, size: int) -> bytes:
    with file.open("rb") as shard:
        shard.seek(start)
        return shard.read(size)


def _grouped(file: Path) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """(name, file ending -> first byte and size) of each sample."""
    name, members = "", dict[str, tuple[int, int]]()
    try:
        with tarfile.open(file, "r:") as shard:  # uncompressed: a compressed file has no offsets to read at
            for entry in shard:
                if not entry.isfile():
                    continue
                folder, _, base = entry.name.rpartition("/")
                stem, _, ending = base.partition(".")
                if (key := f"{folder}/{stem}" if folder else stem) != name:
                    if members:
                        yield name, members
                    name, members = key, {}
                members[ending.lower()] = entry.offset_data, entry.size
        if file.stat().st_size < max((start + size for start, size in members.values()), default=0):
            raise tarfile.ReadError("it ends within a file")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"shard {file} cannot be read as an uncompressed .tar ({error}); copy it again, or unpack it"
        ) from error
    if members:
        yield name, members
