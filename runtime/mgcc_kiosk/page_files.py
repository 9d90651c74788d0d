"""The page's files, from this package: nothing of it comes from elsewhere, and browsers are told to see to that."""

from __future__ import annotations

from pathlib import Path

from starlette.middleware import Middleware
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FOLDER = Path(__file__).parent / "page"
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = ((b"content-security-policy", _POLICY.encode()), (b"referrer-policy", b"no-referrer"),
            (b"cache-control", b"no-cache"))  # fmt: skip


class _Policy:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await self._app(scope, receive, with_policy)


def page_route() -> Mount:
    """To be the last route: it answers whatever the others do not."""
    files = StaticFiles(directory=FOLDER, html=True)
    return Mount("/", files, middleware=[Middleware(_Policy)])
