"""What bytes may come where JSON is expected, for every reader: each is taken, or refused in one sentence."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgcc_runtime.errors import EXIT_BAD_INPUT, MgccError


@dataclass(frozen=True)
class Oddity:
    """Bytes made of a sound document, an object; `taken`: they say the same as that one."""

    name: str
    spoil: Callable[[dict[str, Any]], bytes]
    taken: bool = False


def _beside(text: str) -> Callable[[dict[str, Any]], bytes]:
    """The document with a key more, whose value is this text."""
    return lambda values: f'{{"beside": {text}, {json.dumps(values)[1:]}'.encode()


def _as(encoding: str, mark: str = "") -> Callable[[dict[str, Any]], bytes]:
    return lambda values: (mark + json.dumps(values)).encode(encoding)


def _twice(values: dict[str, Any]) -> bytes:
    name = next(iter(values))
    return f'{{"{name}": {json.dumps(values[name])}, {json.dumps(values)[1:]}'.encode()


ODDITIES = (
    Oddity("byte-order mark", _as("utf-8-sig"), taken=True),
    Oddity("two byte-order marks", _as("utf-8-sig", "\ufeff"), taken=True),
    Oddity("UTF-16", _as("utf-16"), taken=True),
    Oddity("UTF-16 of the other order", _as("utf-16-be", "\ufeff"), taken=True),
    Oddity("UTF-16 without a mark", _as("utf-16-le"), taken=True),
    Oddity("UTF-32", _as("utf-32"), taken=True),
    Oddity("lines that end in CRLF", lambda v: json.dumps(v, indent=1).replace("\n", "\r\n").encode(), taken=True),
    Oddity("space around", lambda v: b"\n \t" + json.dumps(v).encode() + b"\r\n\n  ", taken=True),
    Oddity("empty", lambda v: b""),
    Oddity("space alone", lambda v: b" \r\n"),
    Oddity("a mark alone", lambda v: b"\xef\xbb\xbf"),
    Oddity("zeros", lambda v: b"\0" * 400),
    Oddity("a zero at the end", lambda v: json.dumps(v).encode() + b"\0"),
    Oddity("a zero in a text", lambda v: b'{"beside": "a\0b", ' + json.dumps(v).encode()[1:]),
    Oddity("no UTF-8", lambda v: b'{"beside": "\xff\xfe\xfd", ' + json.dumps(v).encode()[1:]),
    Oddity("UTF-16 cut in a character", lambda v: json.dumps(v).encode("utf-16")[:-1]),
    Oddity("half of it", lambda v: json.dumps(v).encode()[: len(json.dumps(v)) // 2]),
    Oddity("twice", lambda v: 2 * json.dumps(v).encode()),
    Oddity("half a character", _beside('"a\\ud800b"')),
    Oddity("half a character in a key", _beside('{"\\udfff": 1}')),
    Oddity("5,000 digits", _beside("1" * 5000)),
    Oddity("minus 5,000 digits", _beside("-" + "1" * 5000)),
    Oddity("NaN", _beside("NaN")),
    Oddity("Infinity", _beside("Infinity")),
    Oddity("minus Infinity", _beside("[-Infinity]")),
    Oddity("1e999", _beside("1e999")),
    Oddity("100,000 brackets", _beside("[" * 100_000 + "]" * 100_000)),
    Oddity("900 brackets", _beside("[" * 900 + "]" * 900)),
    Oddity("100,000 braces", _beside('{"a":' * 100_000 + "1" + "}" * 100_000)),
    Oddity("100,000 brackets that stay open", lambda v: b"[" * 100_000),
    Oddity("a key that is there twice", _twice),
    Oddity("a key that is there twice inside", _beside('[{"a": 1, "a": 2}]')),
    Oddity("a number", lambda v: b"5"),
    Oddity("a text", lambda v: b'"x"'),
    Oddity("null", lambda v: b"null"),
    Oddity("a list", lambda v: b"[1, 2]"),
    Oddity("an empty object", lambda v: b"{}"),
    Oddity("something else", lambda v: b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
    Oddity("65 MiB", lambda v: json.dumps(v).encode() + b" " * (65 * 2**20)),
)
BY_NAME = pytest.mark.parametrize("oddity", ODDITIES, ids=lambda oddity: oddity.name)


def check_reader(
    oddity: Oddity, path: Path, values: dict[str, Any], read: Callable[[], Any], error: type[Exception] = MgccError
) -> None:
    """Write `values`, which `read` takes, to `path` in this odd way, and read it."""
    path.write_text(json.dumps(values), encoding="utf-8")
    sound = read()
    path.write_bytes(oddity.spoil(values))
    if oddity.taken:
        assert_equal(read(), sound)
        return
    with pytest.raises(error) as caught:
        read()
    check_sentence(caught.value)


def check_sentence(error: Exception) -> None:
    """One sentence that names the thing, and none of Python's advice to programmers."""
    text = str(error)
    assert "\n" not in text
    assert len(text) < 700
    assert not any(word in text for word in ("int_max_str_digits", "utf-8-sig", "surrogates", "recursion", "codec"))
    if isinstance(error, MgccError):
        assert error.exit_code == EXIT_BAD_INPUT


def assert_equal(found: Any, expected: Any) -> None:
    """Of two results that may hold arrays."""
    assert repr(found) == repr(expected)


def spoiled_arrays(folder: Path) -> dict[str, bytes]:
    """What may lie where an .npz file is expected."""
    np.savez(folder / "sound.npz", a=np.arange(1000.0))
    sound = (folder / "sound.npz").read_bytes()
    np.savez(folder / "pickled.npz", a=np.array([{}], dtype=object))
    np.savez_compressed(folder / "compressed.npz", a=np.arange(1000.0))
    compressed = bytearray((folder / "compressed.npz").read_bytes())
    compressed[100:140] = bytes(40)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**13,)})
    with zipfile.ZipFile(folder / "huge.npz", "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    return {
        "empty": b"",
        "zeros": b"\0" * 500,
        "text": b"hello, I am a text",
        "the start of an archive": sound[:30],
        "half": sound[: len(sound) // 2],
        "without its end": sound[:-30],
        "one bit": bytes([*sound[:200], sound[200] ^ 255, *sound[201:]]),
        "pickled": (folder / "pickled.npz").read_bytes(),
        "damaged inside": bytes(compressed),
        "a header without an array": b"\x93NUMPY\x01\x00\xff\xff{'descr'",
        "a size beyond all memory": (folder / "huge.npz").read_bytes(),
    }
