"""What the key opens, and the pass of a visitors' screen, which follows from it and opens less.

Where a server has a key, the page's endpoints need it, too, and a page must not hold it: any visitor could read it.
A screen that staff have let in has a pass instead, in a cookie that no script reads. It opens the page's endpoints
alone: no `/v1`, no numbers, nothing of the staff's. A restart leaves it valid; another key makes another pass.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import hmac

from starlette.datastructures import Headers

from mgcc_kiosk.errors import ApiError, Code
from mgcc_kiosk.settings import Settings
from mgcc_kiosk.visitors.naming import cookie_of

PASS_COOKIE = "mgcc_pass"
PASS_PATH = "/api/pass"
_OF_STAFF, _OF_PAGE, _OF_PROGRAMS = ("/api/staff",), ("/api",), ("/v1", "/metrics")
_PURPOSE = b"mgcc: a screen for visitors"


class Door(enum.Enum):
    """What a path needs where there is a key."""

    OPEN = "open"
    PAGE = "page"  # the pass, or the key
    KEY = "key"
    STAFF = "staff"  # the key, and there has to be one


def door_of(path: str) -> Door:
    if path.startswith(_OF_STAFF):
        return Door.STAFF
    if path.startswith(_OF_PROGRAMS):
        return Door.KEY
    return Door.PAGE if path.startswith(_OF_PAGE) else Door.OPEN


def pass_of(key: str) -> str:
    """Of visitors' screens; nobody learns the key from it."""
    digest = hmac.new(key.encode(), _PURPOSE, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def check_access(path: str, headers: Headers, settings: Settings) -> None:
    """ApiError `invalid_api_key`."""
    door, key = door_of(path), settings.key
    if door is Door.STAFF and not key:
        raise ApiError(Code.INVALID_KEY, "this server has no key, so nobody is staff; start it with a --key-file")
    if not key or door is Door.OPEN or is_same(bearer_of(headers), key):
        return
    if door is Door.PAGE:
        shown = bearer_of(headers) if path == PASS_PATH else cookie_of(headers, PASS_COOKIE)
        if is_same(shown, pass_of(key)):
            return
    raise ApiError(Code.INVALID_KEY, "the key is missing or wrong, expected `Authorization: Bearer KEY`")


def bearer_of(headers: Headers) -> str:
    return headers.get("authorization", "").removeprefix("Bearer ")


def is_same(given: str, wanted: str) -> bool:
    """In a time that tells nothing."""
    return hmac.compare_digest(given.encode(), wanted.encode())
