"""Ids of responses carry their session's name: who knows the id alone, a client or a router, finds the chat by it.

The secret part comes first, so that the name may be of any length: `resp_SECRET.SESSION`.
"""

from __future__ import annotations

import re
import secrets

from mgcc_kiosk.visitors.naming import CLIENT
from mgcc_kiosk.visitors.sessions import SESSION_NAME

_SECRET_BYTES = 24
_ID = re.compile(rf"resp_([A-Za-z0-9_-]{{32}})\.((?:{re.escape(CLIENT)})?{SESSION_NAME})")


def new_response_id(session: str) -> str:
    """Of a session, by its name."""
    return f"resp_{secrets.token_urlsafe(_SECRET_BYTES)}.{session}"


def secret_of(response_id: str) -> str:
    """What tells it from all others, without the session's name: for ids of its parts, which people may show around."""
    found = _ID.fullmatch(response_id)
    assert found is not None
    return found[1]


def session_of(response_id: str) -> str | None:
    """The session's name; None where this is no id of a response."""
    found = _ID.fullmatch(response_id)
    return None if found is None else found[2]
