"""What a server is started with: where it listens, and a limit for everything that a visitor can make more of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields

from mgcc_runtime.errors import OptionError
from mgcc_runtime.values import is_number, shown

USUAL_HOST, USUAL_PORT = "127.0.0.1", 8017
_MOST = 10**12


def _limit(default: float, told: str) -> float:
    kept: float = field(default=default, metadata={"told": told})
    return kept


@dataclass(frozen=True)
class Limits:
    """Each has an option `--limit-NAME` of the command line; OptionError for one that is no number above 0."""

    body_mb: float = _limit(24, "megabytes of one request's body")
    body_s: float = _limit(20, "seconds that a body may take to come")
    parts: float = _limit(32, "texts and pictures of one turn")
    text_chars: float = _limit(8000, "characters of one turn's texts")
    megapixels: float = _limit(16, "millions of pixels of one picture that comes in")
    pictures: float = _limit(10, "pictures of one reading, `n`")
    turns: float = _limit(64, "turns of a chat")
    chats: float = _limit(16, "chats of a session")
    jobs: float = _limit(8, "jobs of a session that wait or run")
    queue: float = _limit(32, "jobs that wait")
    sessions: float = _limit(256, "sessions")
    connections: float = _limit(512, "connections at once")
    picture_mb: float = _limit(64, "megabytes of drawn pictures that are kept for all sessions together")
    takeaway_mb: float = _limit(64, "megabytes of stories that wait to be fetched by phones")
    time_s: float = _limit(120, "seconds that a job may run")
    grace_s: float = _limit(10, "seconds after which a page's job that nobody listens to is cancelled")
    idle_s: float = _limit(1800, "seconds after which an unused session is forgotten")
    keep_s: float = _limit(120, "seconds for which the pictures of a job that has ended can be asked for")
    takeaway_s: float = _limit(600, "seconds for which a story can be fetched by a phone")
    hang_s: float = _limit(60, "seconds without a sign of the worker after which the server is not ready")
    drain_s: float = _limit(10, "seconds that the running job has when the server ends")

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if not is_number(value) or not 0 < float(value) < _MOST:
                raise OptionError(f"limit {limit.name} is {shown(value)}, expected a number above 0; change it")
            number = float(value)
            object.__setattr__(self, limit.name, int(number) if math.floor(number) == number else number)

    @property
    def body_bytes(self) -> int:
        return int(self.body_mb * 1e6)

    @property
    def pixels(self) -> int:
        return int(self.megapixels * 1e6)


@dataclass(frozen=True)
class Settings:
    """Of one server."""

    limits: Limits = Limits()
    host: str = USUAL_HOST
    port: int = USUAL_PORT
    names: tuple[str, ...] = ()  # host names of this machine that requests may be addressed to
    key: str = field(default="", repr=False)  # "": none is required
    pictures_taken: bool = True  # whether requests may bring pictures
    phone_url: str = ""  # where phones reach this server, without a closing slash; "": they do not

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")
