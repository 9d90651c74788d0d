"""Answers that come bit by bit, and clients that leave.

Starlette's own streaming answer did not close its source within 5 s of a client's leaving. Here the connection is
watched beside the work: what was begun for a client ends some milliseconds after it has gone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import anyio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")
KEEP_ALIVE = b": keep-alive\n\n"  # a comment: of an event of its own clients would make something


def server_event(data: dict[str, Any] | str, name: str | None = None, number: int | None = None) -> bytes:
    """One event of a text/event-stream."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    head = (f"id: {number}\n" if number is not None else "") + (f"event: {name}\n" if name is not None else "")
    return f"{head}data: {text}\n\n".encode()


class EventStream(Response):
    """Sends what `source` gives, and closes it as soon as the client leaves."""

    media_type = "text/event-stream"

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def forward() -> None:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for chunk in self._source:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

        close = getattr(self._source, "aclose", None)
        try:
            with contextlib.suppress(OSError):  # the client has gone
                await _first(forward, lambda: _left(receive))
        finally:
            if close is not None:
                with anyio.CancelScope(shield=True):
                    await close()


async def unless_it_leaves(request: Request, wanted: Callable[[], Awaitable[T]]) -> T | None:
    """What `wanted` gives; None where the client leaves before, and it is cancelled. For after the body is read."""
    found: list[T] = []

    async def wait() -> None:
        found.append(await wanted())

    await _first(wait, lambda: _left(request.receive))
    return found[0] if found else None


async def _first(one: Callable[[], Awaitable[None]], other: Callable[[], Awaitable[None]]) -> None:
    """Run both until one ends, and cancel the other."""
    failure: BaseException | None = None

    async def run(what: Callable[[], Awaitable[None]]) -> None:
        nonlocal failure
        try:
            await what()
        except Exception as error:  # noqa: BLE001 (raised below, and not as a group of one)
            failure = error
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(run, one)
        group.start_soon(run, other)
    if failure is not None:
        raise failure


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
