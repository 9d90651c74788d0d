"""Whether a kiosk's page is alive, for a timer that starts its browser again: `python -m mgcc_kiosk.page_watch [URL]`.

A page whose renderer was killed leaves the browser's process running, so nothing else notices.
"""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from typing import Any

from mgcc_kiosk.settings import Settings

_DEAD_S = 60  # without a heartbeat; a page sends one every few seconds, and one that is loaded anew needs some
_PATIENCE_S = 10
ALIVE, DEAD = 0, 1


def is_dead(health: dict[str, Any]) -> bool:
    """What `/health` says of the page: its last heartbeat is long ago, or none came since the server began."""
    seen_s = health["page_heartbeat_s"]
    return float(health["uptime_s"] if seen_s is None else seen_s) > _DEAD_S


def main(arguments: list[str]) -> int:
    """The exit code: DEAD where the page is. A server that does not answer is not the page's fault: ALIVE."""
    url = arguments[0] if arguments else f"http://127.0.0.1:{Settings().port}"
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=_PATIENCE_S) as answer:  # noqa: S310 - of the unit
            return DEAD if is_dead(json.load(answer)) else ALIVE
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return ALIVE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
