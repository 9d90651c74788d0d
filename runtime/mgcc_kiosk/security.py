"""Who may ask: this machine's own pages, and programs that have the key.

- `Host` must be a name of this server's, or an address: a page elsewhere whose name was made to lead here (DNS
  rebinding) still sends its own name.
- `Origin` must be this server itself, and no answer allows another one to read it.
- Where a key is set, everything but the page's files and the health of the server needs it, or a screen's pass.
"""

from __future__ import annotations

import ipaddress
import logging
import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mgcc_kiosk.access import check_access
from mgcc_kiosk.drawing.tally import Tally
from mgcc_kiosk.errors import ApiError, Code, log_failure
from mgcc_kiosk.settings import Settings
from mgcc_kiosk.visitors.naming import COOKIE, By, named

_LOG = logging.getLogger(__name__)
_FOREIGN_SITES = ("cross-site", "same-site")
_FIRST_REFUSAL = 400


class Guard:
    """Lets requests through to `app`, with the session's name in their state; answers the others itself."""

    def __init__(self, app: ASGIApp, settings: Settings, tally: Tally) -> None:
        self._app, self._settings, self._tally = app, settings, tally

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a web socket: there are none here, and uvicorn refuses it
        headers, number = Headers(scope=scope), secrets.token_hex(8)
        visitor = named(scope, headers)
        scope.setdefault("state", {})["visitor"] = visitor
        new_cookie = visitor.by is By.NEW_COOKIE
        started = False

        async def stamped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                out = MutableHeaders(scope=message)
                out["x-request-id"] = number
                out["x-content-type-options"] = "nosniff"
                out.setdefault("cache-control", "no-store")
                if new_cookie and message["status"] < _FIRST_REFUSAL:
                    out.setdefault("set-cookie", f"{COOKIE}={visitor.name}; Path=/; HttpOnly; SameSite=Strict")
            await send(message)

        try:
            self._check(scope["path"], headers)
            await self._app(scope, receive, stamped)
            return
        except ApiError as refusal:
            error = refusal
        except Exception as failure:  # noqa: BLE001 (logged here, or uvicorn would, with its message)
            log_failure(_LOG, "a request", failure)
            error = ApiError(Code.ENGINE_ERROR, "the request failed for a reason of the server's; its log says more")
        self._tally.refused(error.code.word)
        if not started:
            await JSONResponse(error.to_json(), error.status, error.headers())(scope, receive, stamped)

    def _check(self, path: str, headers: Headers) -> None:
        host = headers.get("host", "")
        if not self._is_ours(_without_port(host)):
            raise ApiError(
                Code.FOREIGN_HOST, "the request is addressed to a name that is none of this server's; use one that "
                "`mgcc serve --name` was given, or an address",
            )  # fmt: skip
        origin = headers.get("origin")
        foreign = headers.get("sec-fetch-site") in _FOREIGN_SITES and headers.get("sec-fetch-mode") != "navigate"
        if foreign or (origin is not None and _place(origin.partition("://")[2]) != _place(host)):
            raise ApiError(Code.FOREIGN_ORIGIN, "a page of another origin asks, and only this server's own page may")
        check_access(path, headers, self._settings)

    def _is_ours(self, host: str) -> bool:
        if host.lower() in ("localhost", *self._settings.names):
            return True
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return False
        return True


def _without_port(host: str) -> str:
    """`[::1]:80`, `name:80` and `name` -> the name or address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _place(host: str) -> str:
    """Without a scheme's usual port, which an origin leaves out."""
    return host.lower().removesuffix(":80").removesuffix(":443")
