"""Where what is kept between starts lies. No cache is needed: without a place for one, things are made again."""

from __future__ import annotations

import functools
import logging
import os
import sys
from pathlib import Path

_LOG = logging.getLogger(__name__)


def cache_place() -> Path | None:
    """$MGCC_CACHE, or a folder in the system's place for caches; None, said in the log, where there is no such place.

    The folder may have to be made yet. As the XDG directories' specification has it, a relative $XDG_CACHE_HOME is
    none. A home is not made: of a service it is often a name for nothing, such as /nonexistent.
    """
    if own := os.environ.get("MGCC_CACHE"):
        return Path(own).absolute()
    if sys.platform == "win32" and (local := os.environ.get("LOCALAPPDATA")):
        return Path(local) / "mgcc" / "cache"
    system = Path(os.environ.get("XDG_CACHE_HOME") or ".")
    if system.is_absolute():
        return system / "mgcc"
    home = _home()
    if home is None:
        _say_once("there is no home folder, and no $MGCC_CACHE or $XDG_CACHE_HOME: nothing is kept for the next start")
        return None
    return home / ".cache" / "mgcc"


def writable_cache(name: str) -> Path | None:
    """The folder `name` of the cache, made if it is not there; None, said in the log, where it cannot be written to."""
    place = cache_place()
    if place is None:
        return None
    folder = place / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _say_once(f"{folder} cannot be made ({error.strerror}): nothing is kept there for the next start")
        return None
    if os.access(folder, os.W_OK | os.X_OK):
        return folder
    _say_once(f"{folder} cannot be written to: nothing is kept there for the next start")
    return None


def _home() -> Path | None:
    try:
        home = Path.home()
        return home if os.environ.get("HOME") != "" and home.is_absolute() and home.is_dir() else None
    except (RuntimeError, OSError):  # a user without an entry among the system's; a home that is not ours to look at
        return None


@functools.cache
def _say_once(text: str) -> None:
    """Once for all stages."""
    _LOG.info(text)
