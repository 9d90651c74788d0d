"""Forms with files (multipart/form-data), in memory: a file of a visitor's never touches a disk."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from mgcc_kiosk.errors import ApiError, Code, invalid
from mgcc_kiosk.settings import Limits
from mgcc_kiosk.wire.bodies import media_type, read_body

_FIELDS, _FIELD_BYTES = 256, 2**20


class _InMemory(MultiPartParser):
    spool_max_size = 2**40  # beyond any body, so that no file is spooled to the disk


@dataclass(frozen=True)
class Form:
    """Fields and files by name, in the order in which they came."""

    fields: tuple[tuple[str, str], ...]
    files: tuple[tuple[str, bytes], ...]


async def read_form(request: Request, limits: Limits) -> Form:
    """ApiError where the body is no form."""
    body = await read_body(request, limits)
    if media_type(request) != "multipart/form-data":
        raise ApiError(
            Code.UNSUPPORTED_MEDIA,
            f"the body is {media_type(request)[:60] or 'of no type'}, expected multipart/form-data; send a form",
        )

    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    headers = Headers({"Content-Type": request.headers["content-type"]})
    parser = _InMemory(headers, whole(), max_files=limits.parts, max_fields=_FIELDS, max_part_size=_FIELD_BYTES)
    try:
        items = (await parser.parse()).multi_items()
    except MultiPartException as error:
        raise invalid(f"the form cannot be read ({error.message.rstrip('.')}); send a sound one") from None
    fields, files = [], []
    for name, value in items:
        if isinstance(value, str):
            fields.append((name, value))
        else:
            files.append((name, value.file.read()))
            value.file.close()
    return Form(tuple(fields), tuple(files))
