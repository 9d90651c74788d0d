"""The application: all endpoints behind the guard, and one answer to every error."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mgcc_kiosk.endpoints import chats, jobs, operation, staff, takeaways, visits
from mgcc_kiosk.errors import ApiError, Code
from mgcc_kiosk.housekeeping import keep_house
from mgcc_kiosk.kiosk import Kiosk, kiosk_of
from mgcc_kiosk.openai import chat_completions, images, models, responses
from mgcc_kiosk.page_files import page_route
from mgcc_kiosk.security import Guard

MODULES = (visits, chats, jobs, takeaways, staff, operation, models, images, chat_completions, responses)
_OF_STATUS = {404: Code.NOT_FOUND, 405: Code.METHOD_NOT_ALLOWED}


def make_app(kiosk: Kiosk) -> Starlette:
    """Its worker starts with it."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        kiosk.worker.start()
        house = asyncio.create_task(keep_house(kiosk))
        try:
            yield
        finally:
            house.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await house
            kiosk.worker.end()

    app = Starlette(
        routes=[route for module in MODULES for route in module.ROUTES] + [page_route()],
        middleware=[Middleware(Guard, settings=kiosk.settings, tally=kiosk.tally)],
        exception_handlers={ApiError: _refused, HTTPException: _not_routed},
        lifespan=lifespan,
    )
    app.state.kiosk = kiosk
    return app


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    kiosk_of(request).tally.refused(error.code.word)
    return JSONResponse(error.to_json(), error.status, error.headers())


async def _not_routed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _OF_STATUS.get(error.status_code, Code.INVALID_REQUEST)
    known = "docs/serving.md lists all paths and methods"
    answer = await _refused(request, ApiError(code, f"{request.method} is not answered at this path; {known}"))
    answer.headers.update(error.headers or {})
    return answer
