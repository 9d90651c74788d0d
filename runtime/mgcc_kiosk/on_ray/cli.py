"""Starts Ray, or joins it, and serves until a signal."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import Any

from mgcc_kiosk.cli import filters_of, settings_of
from mgcc_kiosk.on_ray.options import NAME, parser_of
from mgcc_kiosk.settings import Settings
from mgcc_runtime.bundle.folder import read_manifest
from mgcc_runtime.commands.console import command, give_json, note
from mgcc_runtime.errors import EXIT_DONE, EngineError, InputError, OptionError

_PROXY = "mgcc_kiosk.on_ray.proxy.middlewares"
#: Before anything of Ray starts: no word to its makers, and its proxies tell it whose a request is.
_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": _PROXY}


@command(NAME)
def main(arguments: Sequence[str] | None = None) -> int:
    """Until SIGTERM or Ctrl-C; returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = parser_of().parse_args(given)
    settings = settings_of(options)  # what cannot be is refused here, before anything starts
    filters_of(options)
    if settings.port == 0:
        raise OptionError("port is 0, expected the number of one that is free; Ray chooses none")
    profile = read_manifest(options.bundle).profile
    os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
    ray, serve = _imported("ray"), _imported("ray.serve")
    ray.init(
        address=options.cluster, include_dashboard=None if options.cluster else False, log_to_driver=False,
        configure_logging=False, _temp_dir=None if options.scratch is None else str(options.scratch.absolute()),
    )  # fmt: skip
    try:
        signal.signal(signal.SIGTERM, _interrupted)  # which Ray has taken
        _run(serve, options, settings, given)
        url = f"http://{settings.host}:{settings.port}"
        if options.json:
            give_json({"url": url, "profile": profile})
        else:
            note(f"{url}: {options.replicas} replicas on Ray Serve; Ctrl-C ends them")
        while True:
            signal.pause()
    except KeyboardInterrupt:
        return EXIT_DONE
    finally:
        serve.shutdown()
        ray.shutdown()


def _run(serve: Any, options: argparse.Namespace, settings: Settings, arguments: Sequence[str]) -> None:
    """Returns once all replicas answer."""
    from mgcc_kiosk.on_ray.replica import Share, application

    quiet = {"enable_access_log": False}  # a visitor's paths and addresses belong into no file
    serve.start(http_options={"host": settings.host, "port": settings.port}, logging_config=quiet)
    share = Share(options.replicas, options.cpus, options.gpus)
    app = application(options.bundle, share, settings.limits, tuple(arguments))
    try:
        serve.run(app, name="mgcc", route_prefix="/", logging_config=quiet)
    except RuntimeError as error:
        raise EngineError(f"no replica starts; Ray's files say why ({str(error).strip()[:300]})") from None


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{NAME} needs the package {error.name}, which is not installed; pip install 'mgcc-edge[scale]'"
        ) from None


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
