"""Whose request it is: the session's name, by the header, by the cookie, or by the key and address of a program."""

from __future__ import annotations

import enum
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.types import Scope

from mgcc_kiosk.visitors.sessions import is_session_name

COOKIE, SESSION_HEADER = "mgcc_session", "x-session-id"
_DIGITS = 32  # of a program's name
CLIENT = "client."  # begins the name of a program's session, which no header can say
_SALT = secrets.token_bytes(32)  # a program's name stands in its responses' ids, and tells nobody its key


class By(enum.Enum):
    """What named the session."""

    HEADER = "header"
    COOKIE = "cookie"
    NEW_COOKIE = "new cookie"  # the browser has to be told it
    CLIENT = "client"  # nothing did: a program's session is known by its key and address


@dataclass(frozen=True)
class Named:
    """A session's name, and where it comes from."""

    name: str
    by: By


def named(scope: Scope, headers: Headers) -> Named:
    """The session of a request, whether it is open or not."""
    if is_session_name(name := headers.get(SESSION_HEADER, "")):
        return Named(name, By.HEADER)
    if scope["path"].startswith("/api/"):
        kept = cookie_of(headers, COOKIE)
        return Named(kept, By.COOKIE) if is_session_name(kept) else Named(secrets.token_urlsafe(24), By.NEW_COOKIE)
    client = scope.get("client") or ("", 0)
    return Named(client_name(f"{headers.get('authorization', '')} {client[0]}", _SALT), By.CLIENT)


def client_name(told: str, salt: bytes) -> str:
    """Of a program that is known by what it told alone."""
    return f"{CLIENT}{hmac.new(salt, told.encode(), hashlib.sha256).hexdigest()[:_DIGITS]}"


def cookie_of(headers: Headers, name: str) -> str:
    """Its value, "" where there is none."""
    try:
        kept = SimpleCookie(headers.get("cookie", "")).get(name)
    except CookieError:
        return ""
    return "" if kept is None else kept.value
