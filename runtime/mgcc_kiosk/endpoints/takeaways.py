"""A story for a visitor's phone: the page brings its picture, a QR code leads the phone to it."""

from __future__ import annotations

import io

import segno
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mgcc_kiosk.drawing.encoding import Format, Rendering
from mgcc_kiosk.errors import ApiError, Code, not_found
from mgcc_kiosk.kiosk import Kiosk, kiosk_of
from mgcc_kiosk.wire.bodies import media_type, read_body
from mgcc_kiosk.wire.pictures_in import from_bytes

#: Browsers scale a picture alone by a style of their own.
_POLICY = {
    "content-security-policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'",
    "referrer-policy": "no-referrer",
}


async def create(request: Request) -> Response:
    """Keep the story's picture for a while."""
    kiosk = kiosk_of(request)
    if not kiosk.settings.phone_url:
        raise ApiError(Code.NOT_FOUND, "no phone can fetch stories here; `mgcc serve --phone-url` says where they can")
    if media_type(request) != Format.PNG.media_type:
        raise ApiError(Code.UNSUPPORTED_MEDIA, "the story is no image/png, expected one; send the page's own picture")
    body = await read_body(request, kiosk.settings.limits)
    png = await run_in_threadpool(_checked, kiosk, body)
    name = kiosk.takeaways.put(kiosk.session(request).name, png)
    url = f"{kiosk.settings.phone_url}/take/{name}"
    told = {"url": url, "qr": qr_code(url), "kept_s": kiosk.settings.limits.takeaway_s}
    return JSONResponse(told, 201)


def _checked(kiosk: Kiosk, body: bytes) -> bytes:
    """As a file of our own making: what is not the picture does not pass. For a thread."""
    image = from_bytes(body, kiosk.settings.limits, "the story")
    kiosk.filters.check_answer(image, "")
    return Rendering(Format.PNG).picture(image).data


async def fetch(request: Request) -> Response:
    """By a phone, which has neither session nor pass: the address is the secret."""
    png = kiosk_of(request).takeaways.find(request.path_params["name"])
    if png is None:
        raise not_found("story")
    headers = {**_POLICY, "content-disposition": 'inline; filename="story.png"'}
    return Response(png, media_type=Format.PNG.media_type, headers=headers)


def qr_code(text: str) -> str:
    """As SVG."""
    buffer = io.BytesIO()
    segno.make(text, error="m", micro=False).save(buffer, kind="svg", border=4, xmldecl=False, scale=4, light="white")
    return buffer.getvalue().decode()


ROUTES = [
    Route("/api/takeaways", create, methods=["POST"]),
    Route("/take/{name}", fetch),
]
