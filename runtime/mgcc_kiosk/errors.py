"""Every refusal as HTTP has it: a status, a code for programs and one sentence for people."""

from __future__ import annotations

import enum
import logging
import traceback
from typing import Any

from mgcc_runtime.errors import CancelledError, ClosedError, ContextLimitError, EngineError, InputError, MgccError


class Code(enum.Enum):
    """Each refusal with its status; docs/serving.md has the same table."""

    INVALID_REQUEST = ("invalid_request", 400)
    CONTEXT_FULL = ("context_length_exceeded", 400)
    MODERATION_BLOCKED = ("moderation_blocked", 400)
    INVALID_KEY = ("invalid_api_key", 401)
    FOREIGN_ORIGIN = ("foreign_origin", 403)
    NOT_FOUND = ("not_found", 404)
    METHOD_NOT_ALLOWED = ("method_not_allowed", 405)
    BODY_TIMEOUT = ("body_timeout", 408)
    CHAT_BUSY = ("chat_busy", 409)
    NOTHING_TO_UNDO = ("nothing_to_undo", 409)
    TOO_MANY_CHATS = ("too_many_chats", 409)
    TOO_MANY_TURNS = ("too_many_turns", 409)
    CANCELLED = ("cancelled", 409)
    PICTURE_DROPPED = ("picture_dropped", 410)
    BODY_TOO_LARGE = ("body_too_large", 413)
    IMAGE_TOO_LARGE = ("image_too_large", 413)
    UNSUPPORTED_MEDIA = ("unsupported_media_type", 415)
    FOREIGN_HOST = ("foreign_host", 421)
    QUEUE_FULL = ("queue_full", 429)
    TOO_MANY_JOBS = ("too_many_jobs", 429)
    TOO_MANY_SESSIONS = ("too_many_sessions", 429)
    ENGINE_ERROR = ("engine_error", 500)
    SHUTTING_DOWN = ("shutting_down", 503)
    NOT_READY = ("not_ready", 503)
    TIME_LIMIT = ("time_limit", 504)

    def __init__(self, word: str, status: int) -> None:
        self.word, self.status = word, status


_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_FIRST_SERVER_STATUS = 500


class ApiError(Exception):
    """A request is refused, or its job has failed."""

    def __init__(
        self, code: Code, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.param, self.retry_after_s = code, message, param, retry_after_s

    @property
    def status(self) -> int:
        return self.code.status

    def to_json(self) -> dict[str, Any]:
        usual = "server_error" if self.status >= _FIRST_SERVER_STATUS else "invalid_request_error"
        told = {"message": self.message, "type": _TYPES.get(self.status, usual)}
        return {"error": {**told, "code": self.code.word, "param": self.param}}

    def headers(self) -> dict[str, str]:
        """OpenAI's client tries 408, 409, 429 and 5xx again by itself, which helps where only time is wanting."""
        if self.retry_after_s is not None:
            return {"retry-after": str(max(1, round(self.retry_after_s)))}
        return {"x-should-retry": "true" if self.code is Code.NOT_READY else "false"}


def not_found(thing: str) -> ApiError:
    """Of an unknown id, and of one that belongs to another session: nobody learns which."""
    return ApiError(Code.NOT_FOUND, f"there is no such {thing} here, expected one of this session; look at its list")


def invalid(message: str, param: str | None = None) -> ApiError:
    return ApiError(Code.INVALID_REQUEST, message, param=param)


def api_error(error: MgccError) -> ApiError:
    """What the runtime refused or failed at, as HTTP has it."""
    codes = (
        (ContextLimitError, Code.CONTEXT_FULL), (InputError, Code.INVALID_REQUEST), (CancelledError, Code.CANCELLED),
        (ClosedError, Code.SHUTTING_DOWN), (EngineError, Code.ENGINE_ERROR), (MgccError, Code.ENGINE_ERROR),
    )  # fmt: skip
    return ApiError(next(code for kind, code in codes if isinstance(error, kind)), str(error))


def log_failure(log: logging.Logger, what: str, error: Exception) -> None:
    """Where it failed, and without its message, which may say what a visitor wrote."""
    trace = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s failed by %s\n%s", what, type(error).__name__, trace)
