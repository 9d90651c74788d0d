"""Draws the items into a folder: one PNG per result, which holds a digest of its inputs.

A killed run resumes with the missing pictures. Several shards may draw into one folder, or into folders that are merged
later. Each item's noise depends on the data, the protocol and the seed alone, so the pictures are the same after a kill
and for any number of shards.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from mgcc_benchmarks.paper.items import Item
from mgcc_benchmarks.paper.painters import Painter
from mgcc_benchmarks.paper.pictures import open_picture
from mgcc_benchmarks.paper.protocol import Noise, Protocol
from mgcc_runtime.errors import InputError, OptionError
from mgcc_runtime.files import write_atomically
from mgcc_runtime.options import SEED
from mgcc_runtime.reading import read_json

log = logging.getLogger("mgcc.benchmarks")

RUN_FILE, PICTURES = "run.json", "pictures"
_KEY = "mgcc-benchmark"  # the PNG's text chunk with that digest


@dataclass(frozen=True)
class Shard:
    """Part `number` of `of`, counted from 1; 1 of 1 is all."""

    number: int = 1
    of: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """I/N. OptionError for anything else."""
        first, slash, second = text.partition("/")
        if slash and first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second):
            return cls(int(first), int(second))
        raise OptionError(f"shard is {text!r}, expected I/N with I from 1 to N; give such as 1/4")

    def results(self, items: Iterable[Item]) -> set[str]:
        """This shard's results: every `of`th in the order of the items."""
        return set(list(dict.fromkeys(item.result for item in items))[self.number - 1 :: self.of])

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True)
class Drawing:
    """One item that is drawn, with its noise."""

    item: Item
    seed: int


def drawings(items: Sequence[Item], noise: Noise, seed: int) -> dict[str, list[Drawing]]:
    """The drawings by the name of their result; those that share a name are in order, and the last one stays.

    With RUNNING noise one generator gives the seeds in the order of the items, without the skipped ones.
    """
    drawn = [item for item in items if not item.skipped]
    if noise is Noise.RUNNING:
        seeds = [int(s) for s in np.random.default_rng(seed).integers(SEED.most, size=len(drawn), dtype=np.int64)]
    else:
        seeds = [_own_seed(seed, item.name) for item in drawn]
    found: dict[str, list[Drawing]] = {}
    for item, own in zip(drawn, seeds, strict=True):
        found.setdefault(item.result, []).append(Drawing(item, own))
    return found


def _own_seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big") >> 1


def begin_run(out: Path, told: dict[str, Any]) -> None:
    """Record in the folder what is drawn there. InputError if it holds pictures of another run."""
    path = out / RUN_FILE
    if path.exists():
        held = read_run(out)
        if changed := [name for name in told if held.get(name) != told[name]]:
            raise InputError(
                f"{out} holds pictures of a run with another {' and '.join(changed)}; give another --out, or the "
                "options of then"
            )
    else:
        write_atomically(path, (json.dumps(told, indent=2) + "\n").encode())


def read_run(out: Path) -> dict[str, Any]:
    """The record of `begin_run` in the folder; empty if there is none. InputError for a damaged file."""
    path = out / RUN_FILE
    if not path.exists():
        return {}
    held = read_json(path, "run")
    if not isinstance(held, dict):
        raise InputError(f"run {path} holds no object, expected what its pictures are of; give another --out")
    return held


@dataclass(frozen=True)
class Draughtsman:
    """A painter at work on a folder, by a protocol."""

    painter: Painter
    protocol: Protocol
    folder: Path

    def draw_all(
        self, wanted: dict[str, list[Drawing]], progress: Callable[[int, int], None] = lambda *_: None
    ) -> dict[str, str]:
        """Draw the missing pictures; returns the reason for each failed item. `progress(done, total)` after each."""
        left_out: dict[str, str] = {}
        for done, (name, under_it) in enumerate(wanted.items(), 1):
            for drawing in reversed(under_it):  # the last one would overwrite the others
                try:
                    self._draw(drawing, self.folder / f"{name}.png")
                except InputError as error:
                    log.warning("item %s is left out: %s", drawing.item.name, error)
                    left_out[drawing.item.name] = str(error)
                else:
                    break
            progress(done, len(wanted))
        return left_out

    def _draw(self, drawing: Drawing, path: Path) -> None:
        parts = [p if isinstance(p, str) else open_picture(p, self.protocol) for p in drawing.item.parts]
        key = _key(self.painter.identity, drawing.seed, parts)
        if _held_key(path) == key:
            return
        image = self.painter.draw(parts, drawing.seed)
        buffer, told = io.BytesIO(), PngImagePlugin.PngInfo()
        told.add_text(_KEY, key)
        image.save(buffer, "PNG", pnginfo=told)
        write_atomically(path, buffer.getvalue())


def _key(identity: str, seed: int, parts: Iterable[str | Image.Image]) -> str:
    """A digest of what a picture was drawn from: the painter, the noise and the prompt as it was given."""
    digest = hashlib.sha256(f"{identity}\n{seed}\n".encode())
    for part in parts:
        data = part.encode() if isinstance(part, str) else f"{part.size}".encode() + part.tobytes()
        digest.update(f"{type(part).__name__} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def _held_key(path: Path) -> str | None:
    """The digest that the picture holds; None if the picture is missing or damaged."""
    try:
        with Image.open(path) as image:
            image.load()
            return str(image.info.get(_KEY))
    except (OSError, ValueError, SyntaxError):
        return None
