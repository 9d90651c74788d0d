"""systemd's watchdog: told only while the worker is known to work, so that a server that hangs is started again."""

from __future__ import annotations

import contextlib
import os
import socket
import time


class Watchdog:
    """Says things to the service manager; nothing where there is none."""

    def __init__(self, place: str, every_s: float) -> None:
        """`place`: of its socket, "" for none; `every_s`: how often it wants to be fed."""
        self._place, self._every_s, self._fed_s = place, every_s, -every_s

    @classmethod
    def from_environment(cls) -> Watchdog:
        limit_us = os.environ.get("WATCHDOG_USEC", "")
        every_s = int(limit_us) / 1e6 / 3 if limit_us.isdecimal() else 10.0
        return cls(os.environ.get("NOTIFY_SOCKET", ""), every_s)

    def feed(self) -> None:
        """Three times in each span that the manager allows."""
        if (now := time.monotonic()) - self._fed_s >= self._every_s:
            self._fed_s = now
            self.say("WATCHDOG=1")

    def say(self, what: str) -> None:
        if not self._place or not hasattr(socket, "AF_UNIX"):
            return
        place = f"\0{self._place[1:]}" if self._place.startswith("@") else self._place
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.sendto(what.encode(), place)
