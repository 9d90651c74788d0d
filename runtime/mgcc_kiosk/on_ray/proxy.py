"""In Ray's proxies: whose a request is, told by the one header that Ray's router reads.

Browsers have a cookie instead, and who knows a response's id alone has the session in it. A program that says none
of that is known by its address, so that it finds the same replica again.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mgcc_kiosk.settings import Limits
from mgcc_kiosk.visitors.naming import COOKIE, SESSION_HEADER, client_name, cookie_of
from mgcc_kiosk.visitors.response_ids import session_of
from mgcc_kiosk.visitors.sessions import is_session_name
from mgcc_runtime.errors import InputError
from mgcc_runtime.reading import parse_json

_RESPONSES = "/v1/responses"


def middlewares() -> list[Middleware]:
    """Ray calls it once in each proxy."""
    return [Middleware(SessionNamer)]


class SessionNamer:
    """Sets the header where it is missing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_session_name(Headers(scope=scope).get(SESSION_HEADER, "")):
            scope = {**scope, "headers": list(scope["headers"])}
            headers = MutableHeaders(scope=scope)
            told, receive = await _response_id(scope, receive)
            name = session_of(told) or ""
            if not is_session_name(name):
                name = cookie_of(headers, COOKIE)
            headers[SESSION_HEADER] = name if is_session_name(name) else _of_address(scope)
        await self._app(scope, receive, send)


def _of_address(scope: Scope) -> str:
    """No session's name, for the router alone: a replica passes it over."""
    host = (scope.get("client") or ("", 0))[0]
    return client_name(host, b"")  # the same in every proxy


async def _response_id(scope: Scope, receive: Receive) -> tuple[str, Receive]:
    """The response that is asked for or gone on from, "" for none; and what gives the body that was read for it."""
    path: str = scope["path"]
    if path.startswith(f"{_RESPONSES}/"):
        return path.removeprefix(f"{_RESPONSES}/").partition("/")[0], receive
    if path != _RESPONSES or scope["method"] != "POST":
        return "", receive
    messages, body = [], b""
    while True:
        messages.append(message := await receive())
        body += message.get("body", b"")
        if not message.get("more_body") or len(body) > Limits().body_bytes:
            break
    waiting = iter(messages)

    async def again() -> Message:
        return next(waiting, None) or await receive()

    return _named_in(body), again


def _named_in(body: bytes) -> str:
    """A body that is no JSON is for the replica to refuse."""
    try:
        told = parse_json(body, "the body")
    except InputError:
        return ""
    found = told.get("previous_response_id") if isinstance(told, Mapping) else None
    return found if isinstance(found, str) else ""
