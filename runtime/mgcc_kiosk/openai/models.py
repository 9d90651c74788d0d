"""`/v1/models`: the one bundle that is served."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mgcc_kiosk.errors import not_found
from mgcc_kiosk.kiosk import Kiosk, kiosk_of
from mgcc_kiosk.openai.asked import model_name


async def models(request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_model_json(kiosk_of(request))]})


async def model(request: Request) -> Response:
    kiosk = kiosk_of(request)
    if request.path_params["model"] != model_name(kiosk):
        raise not_found("model")
    return JSONResponse(_model_json(kiosk))


def _model_json(kiosk: Kiosk) -> dict[str, Any]:
    built_at = datetime.fromisoformat(kiosk.pipeline.bundle.manifest.built_at)
    return {"id": model_name(kiosk), "object": "model", "created": int(built_at.timestamp()), "owned_by": "mgcc-edge"}


ROUTES = [Route("/v1/models", models), Route("/v1/models/{model}", model)]
