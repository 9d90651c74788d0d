"""Stories that visitors fetch with their phones: in memory alone, for minutes, each behind an address of its own."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from mgcc_runtime.conversation.shelf import Kept, Shelf


@dataclass(frozen=True)
class _Takeaway:
    session: str
    until_s: float
    png: Kept[bytes]


class Takeaways:
    """Of a server, one for each session. Used by the event loop's thread alone."""

    def __init__(self, most_bytes: int, kept_s: float) -> None:
        self._shelf, self._kept_s = Shelf(most_bytes), kept_s
        self._known: dict[str, _Takeaway] = {}  # by a name that cannot be guessed

    def put(self, session: str, png: bytes) -> str:
        """Keep it in place of the session's last one; gives its name."""
        self._known = {name: other for name, other in self._known.items() if other.session != session}
        name = secrets.token_urlsafe(16)
        kept: Kept[bytes] = Kept(self._shelf)
        kept.put(png, len(png))
        self._known[name] = _Takeaway(session, time.monotonic() + self._kept_s, kept)
        return name

    def find(self, name: str) -> bytes | None:
        """None where it is not known, is too old, or had to make room."""
        found = self._known.get(name)
        return None if found is None or found.until_s < time.monotonic() else found.png.get()

    def drop_old(self) -> None:
        now = time.monotonic()
        self._known = {name: found for name, found in self._known.items() if found.until_s >= now}
