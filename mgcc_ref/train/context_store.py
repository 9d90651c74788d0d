"""The frozen language model's outputs for groups of requests, kept on disk: what `align` and `draw` learn from."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor

from mgcc_ref.prompting import Part
from mgcc_ref.train.errors import TrainingError

log = logging.getLogger("mgcc.train")

GROUP_SIZE = 16  # requests of about the same length, padded to the longest


class HasParts(Protocol):
    """Anything that the language model can read."""

    @property
    def parts(self) -> Sequence[Part]: ...


R = TypeVar("R", bound=HasParts)


def grouped_by_length(requests: Sequence[R]) -> list[list[R]]:
    """The requests in groups of `GROUP_SIZE` of similar length, shortest first, for little padding."""
    ordered = sorted(requests, key=lambda r: sum(len(p) if isinstance(p, str) else 40 for p in r.parts))
    return [ordered[i : i + GROUP_SIZE] for i in range(0, len(ordered), GROUP_SIZE)]


class ContextStore:
    """One safetensors file a group. With their key-value caches, 200 groups of the profile story take 6.2 GB.

    Runs of other seeds or arms in neighbouring folders share it. After a kill, reading resumes at the missing groups.
    """

    def __init__(self, folder: Path, groups: int) -> None:
        self.folder, self.groups = folder, groups

    def build(self, request_of: Callable[[int], R], read: Callable[[list[R]], dict[str, Tensor]]) -> None:
        """Read the missing ones of `groups` groups of the requests `request_of(0)`, `request_of(1)` and so on.

        TrainingError if the folder is of other texts: groups of both would be mixed, or the old ones trained on.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._check(request_of)
        missing = [i for i in range(self.groups) if not self._file(i).exists()]
        if not missing:
            return
        grouped = grouped_by_length([request_of(i) for i in range(self.groups * GROUP_SIZE)])
        started = time.monotonic()
        for done, index in enumerate(missing, start=1):
            temporary = self.folder / "group.tmp"
            save_file({name: t.contiguous() for name, t in read(grouped[index]).items()}, temporary)
            temporary.replace(self._file(index))
            if done % 10 == 0:
                left_min = (time.monotonic() - started) / done * (len(missing) - done) / 60
                log.info("read %d of %d groups of contexts  %.1f min left", index + 1, self.groups, left_min)

    def _check(self, request_of: Callable[[int], R]) -> None:
        """By the texts of the first requests: all of them would take minutes to make."""
        texts = [[p for p in request_of(i).parts if isinstance(p, str)] for i in range(GROUP_SIZE)]
        digest, kept = hashlib.sha256(json.dumps(texts).encode()).hexdigest(), self.folder / "texts.sha256"
        if not kept.exists() and not any(self.folder.glob("group-*")):
            kept.write_text(digest, encoding="ascii")
        elif not kept.exists() or kept.read_text(encoding="ascii") != digest:
            raise TrainingError(
                f"{self.folder} holds contexts of other texts than this run's; move the folder away, and they are read "
                "anew"
            )

    def __len__(self) -> int:
        return self.groups

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return load_file(self._file(index))

    def _file(self, index: int) -> Path:
        return self.folder / f"group-{index:05d}.safetensors"
