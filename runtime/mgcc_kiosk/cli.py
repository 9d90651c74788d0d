"""`mgcc serve`: its options, and what it prints."""

from __future__ import annotations

import argparse
import os
from dataclasses import fields
from pathlib import Path
from urllib.parse import urlsplit

from mgcc_kiosk.drawing.filters import ContentFilter, Filters, WordList, Words, load_filter
from mgcc_kiosk.kiosk import Kiosk
from mgcc_kiosk.server import address, listen, serve
from mgcc_kiosk.settings import Limits, Settings
from mgcc_runtime.commands.console import give_json, note
from mgcc_runtime.errors import EXIT_DONE, OptionError
from mgcc_runtime.pipeline import Pipeline
from mgcc_runtime.reading import read_text

KEY_VARIABLE = "MGCC_API_KEY"
_SHORTEST_KEY = 16


def run(options: argparse.Namespace) -> int:
    """Serve until a signal; returns the exit code."""
    settings = settings_of(options)
    filters = Filters(filters_of(options))
    with listen(settings) as listener, Pipeline.load(options.bundle, threads=options.threads) as pipeline:
        listener.listen()  # from here on whoever asks is answered, also before uvicorn is at work
        url = address(listener)
        if options.json:
            give_json({"url": url, "profile": pipeline.bundle.manifest.profile})
        else:
            note(f"{url}: the page; {url}/v1 for clients of OpenAI's API; Ctrl-C ends it")
        serve(Kiosk(pipeline, settings, filters), listener)
    return EXIT_DONE


def settings_of(options: argparse.Namespace) -> Settings:
    given = {limit.name: getattr(options, f"limit_{limit.name}") for limit in fields(Limits)}
    limits = Limits(**{name: value for name, value in given.items() if value is not None})
    phone_url, phone_name = _phone_url(options.phone_url)
    names = [name.lower() for name in [*options.name, *([phone_name] if phone_name else [])]]
    settings = Settings(
        limits, options.host, options.port, tuple(names), _key(options.key_file), not options.no_pictures, phone_url
    )
    if not settings.loopback and not settings.key:
        raise OptionError(
            f"--host {settings.host} can be reached from other machines, and no key is set; put one into "
            f"${KEY_VARIABLE} or a --key-file, or take 127.0.0.1"
        )
    return settings


def _key(path: Path | None) -> str:
    """From a file or the environment: other users see a command's arguments."""
    key = read_text(path, "key file").strip() if path is not None else os.environ.get(KEY_VARIABLE, "")
    if (key or path is not None) and (len(key) < _SHORTEST_KEY or not key.isascii() or " " in key):
        raise OptionError(
            f"the key has {len(key)} characters, expected at least {_SHORTEST_KEY} of ASCII; make another"
        )
    return key


def _phone_url(url: str) -> tuple[str, str]:
    """Without a closing slash, and the host's name."""
    try:
        told = urlsplit(url.rstrip("/"))
        name = told.hostname or ""
    except ValueError:
        told, name = urlsplit(""), ""
    if url and (told.scheme not in ("http", "https") or not name or told.path or told.query or told.fragment):
        raise OptionError(f"phone URL is {url}, expected http://HOST:PORT alone; correct it")
    return told.geturl(), name


def filters_of(options: argparse.Namespace) -> list[ContentFilter]:
    lists = ((options.allowed_words, Words.ALLOWED), (options.blocked_words, Words.BLOCKED))
    listed: list[ContentFilter] = [WordList.read(path, kind) for path, kind in lists if path is not None]
    return [*listed, *map(load_filter, options.filter)]
