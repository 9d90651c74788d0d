"""Runs the application on a socket, and ends it in order: no new jobs, the running one finished, then connections."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time

import uvicorn

from mgcc_kiosk.app import make_app
from mgcc_kiosk.drawing.jobs import Reason
from mgcc_kiosk.kiosk import Kiosk
from mgcc_kiosk.settings import Settings
from mgcc_runtime.errors import OutputError

_CLOSING_S = 3  # that open connections have once their jobs have ended


def listen(settings: Settings) -> socket.socket:
    """A socket of its own, so that port 0 is known before anything runs; OutputError where it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # with the protocol named, or asyncio leaves Nagle's algorithm on: each answer of two pieces took 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise OutputError(
            f"{settings.host} port {settings.port} cannot be listened on ({error.strerror}); give another --port"
        ) from None
    return listener


def address(listener: socket.socket) -> str:
    """The URL that it answers at."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(kiosk: Kiosk, listener: socket.socket) -> None:
    """Until SIGTERM or Ctrl-C; a second Ctrl-C ends it at once."""
    config = uvicorn.Config(
        make_app(kiosk), log_config=None, access_log=False, server_header=False, date_header=False, lifespan="on",
        ws="none", loop="asyncio", http="h11", timeout_graceful_shutdown=_CLOSING_S,
        limit_concurrency=int(kiosk.settings.limits.connections), timeout_keep_alive=30,
    )  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn hands the signal on once all is done: no failure of a server
        _Server(config, kiosk).run(sockets=[listener])


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, kiosk: Kiosk) -> None:
        super().__init__(config)
        self._kiosk = kiosk

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._drain()
        await super().shutdown(sockets)

    async def _drain(self) -> None:
        """Let the running job end, for a while; those that wait end at once, and so do their streams."""
        kiosk = self._kiosk
        kiosk.ending = True
        kiosk.worker.end()
        until_s = time.monotonic() + kiosk.settings.limits.drain_s
        while kiosk.worker.running is not None and time.monotonic() < until_s and not self.force_exit:
            await asyncio.sleep(0.02)
        if (job := kiosk.worker.running) is not None:
            kiosk.worker.stop(job, Reason.SHUTDOWN)
