"""COCO: `annotations/captions_SPLIT.json`, `annotations/instances_SPLIT.json` and the pictures in `SPLIT/`."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mgcc_ref.train.data.sample import Box, DataError, Phrase, Sample, as_text, read_bytes

SPLIT = "train2017"
SMALLEST = 0.02  # least side of a box, of the picture's: no layout needs smaller objects


class Coco:
    """One sample a caption, in order of the pictures' ids. Without `instances_SPLIT.json` there are no phrases."""

    def __init__(self, folder: Path, split: str = SPLIT, pictures: Path | None = None) -> None:
        self._captions_file = folder / "annotations" / f"captions_{split}.json"
        captions = _read(self._captions_file)
        self.pictures = pictures or folder / split
        if not self.pictures.is_dir():
            raise DataError(f"COCO's pictures are not in {self.pictures}, which is no folder; give it as --pictures")
        self._images = {self._of(image, "id"): image for image in captions["images"]}
        order = sorted(captions["annotations"], key=lambda one: (self._of(one, "image_id"), self._of(one, "id")))
        self._captions = [(one["image_id"], str(self._of(one, "caption"))) for one in order]
        if not self._captions:
            raise DataError(f"{self._captions_file} has no annotations; give COCO's captions")
        if unknown := next((i for i, _ in self._captions if i not in self._images), None):
            raise DataError(f"{self._captions_file} has a caption of image {unknown}, which it lacks; copy it again")
        instances = folder / "annotations" / f"instances_{split}.json"
        self._things = _things(instances) if instances.is_file() else {}

    def _of(self, record: Any, field: str) -> Any:
        return _field(record, field, self._captions_file)

    def __len__(self) -> int:
        return len(self._captions)

    def __getitem__(self, index: int) -> Sample:
        number, told = self._captions[index]
        caption = " ".join(told.split())
        image = self._images[number]
        name, size = str(self._of(image, "file_name")), (self._of(image, "width"), self._of(image, "height"))
        phrases = [
            Phrase(label, box, named(label, caption))
            for label, pixels in self._things.get(number, ())
            if (box := _box(pixels, size)) is not None
        ]
        return Sample(name, caption, (self.pictures / name).read_bytes, tuple(phrases))


def named(label: str, caption: str) -> tuple[int, int] | None:
    """The characters at which a caption names a category, singular or plural; None if it uses other words."""
    found = re.search(rf"\b{re.escape(label)}(?:s|es)?\b", caption, re.IGNORECASE)
    return found.span() if found else None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(as_text(read_bytes(path, "COCO's list"), str(path)))
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not valid JSON ({error}); copy it again") from error
    lists = found if isinstance(found, dict) else {}
    lacking = [name for name in ("images", "annotations") if not isinstance(lists.get(name), list)]
    if lacking:
        raise DataError(f"{path} lacks the list {' and '.join(lacking)}, expected COCO's form; give its own file")
    return lists


def _field(record: Any, field: str, path: Path) -> Any:
    if not isinstance(record, Mapping) or field not in record:
        raise DataError(f"{path} has a record without {field!r}, expected COCO's form; copy it again")
    return record[field]


def _things(path: Path) -> dict[int, list[tuple[str, Sequence[float]]]]:
    """Picture's id -> category and box (x, y, width, height in pixels) of each object, without crowds."""
    lists = _read(path)
    labels = {_field(c, "id", path): str(_field(c, "name", path)) for c in lists.get("categories", ())}
    found = defaultdict(list)
    for one in lists["annotations"]:
        box, category = _field(one, "bbox", path), _field(one, "category_id", path)
        if category not in labels or not isinstance(box, list) or len(box) != 4:
            raise DataError(
                f"{path} has a box {box!r} of category {category}, expected four numbers of one it names; copy it again"
            )
        if not one.get("iscrowd", 0):
            found[_field(one, "image_id", path)].append((labels[category], box))
    return dict(found)


def _box(pixels: Sequence[float], size: tuple[int, int]) -> Box | None:
    left, top, right, bottom = pixels[0], pixels[1], pixels[0] + pixels[2], pixels[1] + pixels[3]
    x0, x1 = (min(max(v / size[0], 0.0), 1.0) for v in (left, right))
    y0, y1 = (min(max(v / size[1], 0.0), 1.0) for v in (top, bottom))
    return (x0, y0, x1, y1) if x1 - x0 >= SMALLEST and y1 - y0 >= SMALLEST else None
