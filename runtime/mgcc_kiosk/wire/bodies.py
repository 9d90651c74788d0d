"""Bodies: taken within limits of size and time, and never written to a file."""

from __future__ import annotations

from typing import Any

import anyio
from starlette.requests import Request

from mgcc_kiosk.errors import ApiError, Code, invalid
from mgcc_kiosk.settings import Limits
from mgcc_runtime.errors import InputError
from mgcc_runtime.reading import parse_json


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(request: Request, limits: Limits) -> bytes:
    """ApiError `body_too_large` before it is all here, `body_timeout` where it comes too slowly."""
    most = limits.body_bytes
    told = request.headers.get("content-length", "0")
    if not told.isdecimal() or int(told) > most:
        raise _too_large(most)
    body = bytearray()
    with anyio.move_on_after(limits.body_s) as patience:
        async for chunk in request.stream():
            body += chunk
            if len(body) > most:
                raise _too_large(most)
    if patience.cancelled_caught:
        raise ApiError(Code.BODY_TIMEOUT, f"the body took more than {limits.body_s:g} s to come; send it at once")
    return bytes(body)


async def read_json_object(request: Request, limits: Limits) -> dict[str, Any]:
    """The body as a JSON object; ApiError. No body is an empty object."""
    body = await read_body(request, limits)
    if not body:
        return {}
    if media_type(request) != "application/json":
        raise ApiError(
            Code.UNSUPPORTED_MEDIA,
            f"the body is {media_type(request)[:60] or 'of no type'}, expected application/json; send JSON",
        )
    try:
        values = parse_json(body, "the body")
    except InputError as error:
        raise invalid(str(error)) from None
    if not isinstance(values, dict):
        raise invalid("the body is no JSON object, expected {...}; send one")
    return values


def _too_large(most: int) -> ApiError:
    return ApiError(
        Code.BODY_TOO_LARGE, f"the body is larger than the {most / 1e6:g} MB that are taken; send smaller pictures"
    )
