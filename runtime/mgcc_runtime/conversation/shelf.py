"""Values that could be made again, kept while there is room: those used last, within a budget of bytes."""

from __future__ import annotations

import itertools
import threading
import weakref
from collections import OrderedDict
from typing import Generic, TypeVar, cast

from mgcc_runtime.options import CHAT_BYTES

T = TypeVar("T")


class Shelf:
    """Shared by all chats of a pipeline, from any thread."""

    def __init__(self, chat_bytes: int) -> None:
        """`chat_bytes` is the budget; OptionError."""
        self.chat_bytes = CHAT_BYTES.check(chat_bytes)
        # what was used last stands last
        self._values: OrderedDict[int, tuple[object, int]] = OrderedDict()  # key -> value, bytes
        self._used_bytes, self._keys = 0, itertools.count()
        self._lock = threading.RLock()  # the end of a `Kept` may come within any call, also of this very thread

    @property
    def used_bytes(self) -> int:
        return self._used_bytes

    def new_key(self) -> int:
        with self._lock:
            return next(self._keys)

    def find(self, key: int) -> object | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def put(self, key: int, value: object, size_bytes: int) -> None:
        """Keep a value, and drop what was used longest ago until all fit; one that is too large is not kept."""
        with self._lock:
            self.drop(key)
            self._values[key] = value, size_bytes
            self._used_bytes += size_bytes
            while self._used_bytes > self.chat_bytes:
                self.drop(next(iter(self._values)))

    def drop(self, key: int) -> None:
        with self._lock:
            _, size_bytes = self._values.pop(key, (None, 0))
            self._used_bytes -= size_bytes


class Kept(Generic[T]):
    """A place on a shelf for one value; freed when nobody holds this any more."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf, self._key = shelf, shelf.new_key()
        weakref.finalize(self, shelf.drop, self._key).atexit = False

    def get(self) -> T | None:
        """The value; None where there was none, or no room for it."""
        return cast("T | None", self._shelf.find(self._key))

    def put(self, value: T, size_bytes: int) -> None:
        self._shelf.put(self._key, value, size_bytes)

    def drop(self) -> None:
        self._shelf.drop(self._key)
