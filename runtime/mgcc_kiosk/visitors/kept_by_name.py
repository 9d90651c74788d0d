"""What OpenAI's clients may come back to by a name: a response's id, or what stands for all that was said.

Those used last are kept, a bounded number for each session. What is dropped, a client sends again.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")
_MOST = 64  # a session


class KeptByName(Generic[T]):
    """Of one session."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._values: OrderedDict[str, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def values(self) -> list[T]:
        return list(self._values.values())

    def put(self, name: str, value: T) -> None:
        self._values[name] = value
        self._values.move_to_end(name)
        while len(self._values) > self._most:
            self._values.popitem(last=False)

    def find(self, name: str) -> T | None:
        if name in self._values:
            self._values.move_to_end(name)
        return self._values.get(name)

    def drop(self, name: str) -> bool:
        """Whether it was there."""
        return self._values.pop(name, None) is not None
