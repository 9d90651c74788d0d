"""CC3M in GILL's form: a table with the header `caption<TAB>image`, a folder of pictures, and in it `clip_embs`."""

from __future__ import annotations

import csv
from array import array
from pathlib import Path

from mgcc_ref.train.data.sample import DataError, Sample, as_text

CAPTION, IMAGE = "caption", "image"
TARGETS = "clip_embs"  # <image>.npy, (77, 768): Stable Diffusion's conditioning of the caption


class CaptionTable:
    """The rows of a .tsv. Only the offsets of lines are in memory: 24 MB for three million captions.

    Pictures are in `pictures`; if it holds a folder `clip_embs`, each picture's target is there.
    """

    def __init__(self, table: Path, pictures: Path) -> None:
        if not pictures.is_dir():
            raise DataError(f"the pictures of {table} are not in {pictures}, which is no folder; give it as --pictures")
        self.table, self.pictures = table, pictures
        self._targets = pictures / TARGETS if (pictures / TARGETS).is_dir() else None
        self._starts, columns = self._scan()
        if len(self._starts) == 0:
            raise DataError(f"{table} has a header and no rows; give a table with captions")
        self._columns = columns

    def _scan(self) -> tuple[array[int], dict[str, int]]:
        """The offset of each row, and the columns' numbers."""
        starts, position = array("q"), 0
        try:
            with self.table.open("rb") as file:
                header = file.readline()
                columns = self._header(header)
                position = len(header)
                for number, line in enumerate(file, start=2):
                    if line.strip():
                        if (fields := line.count(b"\t") + 1) != len(columns):
                            raise DataError(
                                f"line {number} of {self.table} has {fields} fields, expected {len(columns)} as the "
                                "header has; put each caption on one line, without tabs in it"
                            )
                        starts.append(position)
                    position += len(line)
        except OSError as error:
            raise DataError(f"table {self.table} cannot be read ({error.strerror}); give the .tsv") from error
        return starts, columns

    def _header(self, line: bytes) -> dict[str, int]:
        names = as_text(line, f"the header of {self.table}").strip("\r\n").split("\t")
        if not {CAPTION, IMAGE} <= set(names):
            raise DataError(
                f"{self.table} begins with {names[:3]}, expected a header with the columns {CAPTION} and {IMAGE} "
                "between tabs; write it into the first line"
            )
        return {name: i for i, name in enumerate(names)}

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Sample:
        with self.table.open("rb") as file:
            file.seek(self._starts[index])
            line = as_text(file.readline(), f"row {index + 1} of {self.table}")
        (fields,) = csv.reader([line.rstrip("\r\n")], delimiter="\t")
        name, caption = fields[self._columns[IMAGE]], fields[self._columns[CAPTION]].strip()
        if not caption or not name:
            raise DataError(f"row {index + 1} of {self.table} lacks a caption or an image; fill it, or take it out")
        target = None if self._targets is None else (self._targets / f"{name}.npy").read_bytes
        return Sample(name, caption, (self.pictures / name).read_bytes, target=target)
