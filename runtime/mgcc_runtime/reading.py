"""Text, JSON and arrays that somebody else wrote: taken, or refused in one sentence. Nothing is ever unpickled.

Every reader of a file goes through here, so that all of them take the same byte-order marks and refuse the same
oddities: what Python would pass over (a key that is there twice, NaN, a number without bounds) or say in its own words.
"""

from __future__ import annotations

import enum
import json
import math
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mgcc_runtime.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_TEXT_BYTES = 64 * 2**20  # far above any manifest or story; stops a wrong file from filling the memory
MAX_DEPTH = 64  # of brackets; ours have 6
MAX_DIGITS = 308  # of a whole number: with more, no float holds it
_PYTHONS_DIGITS = 4300  # that Python itself takes and prints

_MARK = "\ufeff"
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")  # the only way for one into JSON


class Numbers(enum.Enum):
    """What JSON may say where a number belongs."""

    FINITE = "finite"
    ANY = "any"  # also NaN, infinities and what no float holds: in records of our own, such as a ratio to no noise


class _OddError(ValueError):
    """Why a text is not taken as JSON."""


def read_text(path: Path, what: str) -> str:
    """The whole file without its byte-order mark: UTF-8, or what that says. InputError says `what` it should be."""
    return _decoded(_content(path, what, "text"), f"{what} {path}", "text")


def read_json(path: Path, what: str, numbers: Numbers = Numbers.FINITE) -> Any:
    """The parsed file; InputError says `what` it should have been."""
    return parse_json(_content(path, what, "JSON"), f"{what} {path}", numbers)


def parse_json(data: bytes | str, name: str, numbers: Numbers = Numbers.FINITE) -> Any:
    """What a JSON text says; InputError, which begins with `name`, for anything that is not quite JSON."""
    text = _decoded(data, name, "JSON") if isinstance(data, bytes) else data
    finite = numbers is Numbers.FINITE
    try:
        if not text.strip():
            raise _OddError("it is empty")
        values = json.loads(
            text, object_pairs_hook=_object, parse_int=partial(_integer, MAX_DIGITS if finite else _PYTHONS_DIGITS),
            parse_float=_finite if finite else None, parse_constant=_constant if finite else None,
        )  # fmt: skip
        _check_depth(values)
        if _HALF_CHARACTER.search(text):
            json.dumps(values, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        reason = "half a character stands alone in it"
    except RecursionError:
        reason = _TOO_DEEP
    except (json.JSONDecodeError, _OddError) as error:
        reason = str(error)
    else:
        return values
    raise InputError(f"{name} is not valid JSON ({reason}); correct it")


_TOO_DEEP = f"its brackets are nested more than {MAX_DEPTH} deep"


def read_line(stream: IO[str], name: str) -> str:
    """The next line, without a byte-order mark; "" at the end. InputError for one that is no text, or has no end."""
    try:
        line = stream.readline(MAX_TEXT_BYTES)
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not {error.encoding} text ({error.reason}); convert it") from None
    if len(line) == MAX_TEXT_BYTES:
        raise InputError(f"{name} has a line of more than {MAX_TEXT_BYTES} characters; give shorter ones")
    return line.removeprefix(_MARK)


def read_npz(path: Path, what: str) -> dict[str, NDArray[Any]]:
    """All arrays of an .npz file by name; InputError if it is not one, or holds anything else."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    # numpy, zipfile and zlib raise about anything on damaged data, a wrong size's MemoryError included
    except Exception as error:  # noqa: BLE001
        raise InputError(f"{what} {path} is not a plain .npz file ({_first_line(error)}); give a sound one") from None


def map_npy(path: Path, what: str, shape: Sequence[int | None]) -> NDArray[np.float32]:
    """A float32 .npy file of this shape (None: any length), mapped into memory; InputError if it is not one."""
    import numpy as np

    try:
        values: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
        found = f"{values.dtype} {values.shape}"
    except Exception as error:  # noqa: BLE001 (as above)
        raise InputError(f"{what} {path} is not a plain .npy array ({_first_line(error)}); give a sound one") from None
    fits = values.ndim == len(shape) and all(e is None or e == n for e, n in zip(shape, values.shape, strict=True))
    if not fits or values.dtype != np.float32:
        wanted = ", ".join("any" if e is None else str(e) for e in shape)
        raise InputError(f"{what} {path} holds {found}, expected float32 ({wanted}); give a sound one")
    return values


def _content(path: Path, what: str, kind: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)  # not by its size, which pipes and devices do not tell
    except FileNotFoundError:
        raise InputError(f"{what} {path} does not exist; give the path of a {kind} file") from None
    except OSError as error:
        raise InputError(f"{what} {path} cannot be read ({error.strerror}); give a readable {kind} file") from None
    except ValueError:  # with a zero or half a character in it
        raise InputError(f"{what} {str(path)!r} does not exist, no file can be called so; give a {kind} file") from None
    if len(data) > MAX_TEXT_BYTES:
        raise InputError(f"{what} {path} is more than {MAX_TEXT_BYTES} bytes; give a {kind} file")
    return data


def _decoded(data: bytes, name: str, kind: str) -> str:
    encoding = json.detect_encoding(data)
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        spoken = encoding.removesuffix("-sig").upper()
        raise InputError(
            f"{name} is not {spoken} text ({error.reason} at byte {error.start}); give a {kind} file in UTF-8"
        ) from None
    return text.removeprefix(_MARK)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _OddError(f"it has {twice[:60]!r} twice in one object")
    return found


def _integer(most: int, digits: str) -> int:
    if (count := len(digits.lstrip("-"))) > most:
        raise _OddError(f"a number in it has {count} digits, at most {most} are taken")
    return int(digits)


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise _OddError(f"the number {text[:40]} in it is too large")
    return value


def _constant(text: str) -> float:
    raise _OddError(f"{text} in it is no number of JSON")


def _check_depth(values: Any) -> None:
    """By itself, since the parser's own limit depends on how deep its caller is, and what is read must be printable."""
    level = [values]
    for _ in range(MAX_DEPTH + 1):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [value for items in inner for value in items if isinstance(value, dict | list)]
        if not level:
            return
    raise _OddError(_TOO_DEEP)


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
