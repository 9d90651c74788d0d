#!/usr/bin/env python3
"""Start `mgcc serve` on a free port, have it draw one picture as OpenAI's clients ask for one, and end it."""

from __future__ import annotations

import argparse
import base64
import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from mgcc_runtime.commands.console import command
from mgcc_runtime.errors import EXIT_DONE
from mgcc_runtime.reading import parse_json

_PATIENCE_S = 600  # the published scale takes minutes on a CPU
PROMPT = "A zebra stands beside a lighthouse."


@command("draw_once.py")
def main(arguments: Sequence[str] | None = None) -> int:
    """Draw; returns the exit code (see `mgcc_runtime.commands.console`)."""
    parser = argparse.ArgumentParser(prog="draw_once.py", description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.png")
    options = parser.parse_args(arguments)
    command = [sys.executable, "-m", "mgcc_runtime", "serve", "--bundle", str(options.bundle), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = parse_json(server.stdout.readline(), "the server's first line")["url"]
            body = json.dumps({"prompt": PROMPT, "response_format": "b64_json"}).encode()
            asked = urllib.request.Request(  # noqa: S310 (our own server)
                f"{url}/v1/images/generations", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(asked, timeout=_PATIENCE_S) as answer:  # noqa: S310
                picture = parse_json(answer.read(), "the server's answer")["data"][0]["b64_json"]
        finally:
            server.terminate()
    options.out.write_bytes(base64.b64decode(picture))
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
