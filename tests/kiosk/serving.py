"""A real server of a real bundle: `mgcc serve` in a process of its own, as a device runs it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.exported import ROOT

SESSION = {"x-session-id": "a-visitor-of-the-tests"}
OTHER_SESSION = {"x-session-id": "another-visitor-of-them"}
PATIENCE_S = 60


@dataclass
class Served:
    """A running server, and a client of one session."""

    url: str
    process: subprocess.Popen[str]
    errors: Path  # what it says on standard error
    http: httpx2.Client = field(init=False)

    def __post_init__(self) -> None:
        self.http = httpx2.Client(base_url=self.url, headers=SESSION, timeout=PATIENCE_S, trust_env=False)

    def get(self, path: str, **options: Any) -> Any:
        """The JSON of an answer that is no refusal."""
        answer = self.http.get(path, **options)
        assert answer.is_success, answer.text
        return answer.json()

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        answer = self.http.post(path, json={} if body is None else body, **options)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def chat(self, **options: Any) -> str:
        """The path of a new chat."""
        return f"/api/chats/{self.post('/api/chats', **options)['id']}"

    def turn(self, chat: str, text: str, **more: Any) -> dict[str, Any]:
        """The job of a turn, to its end."""
        return self.done(self.post(f"{chat}/turns", {"text": text, **more})["id"])

    def done(self, job: str) -> dict[str, Any]:
        """A job at its end, whatever that is."""
        found = list(self.events(job))
        assert found[-1][1] in ("done", "error", "cancelled")
        told: dict[str, Any] = self.get(f"/api/jobs/{job}")
        return told

    def events(self, job: str, last: int = 0) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """Number, name and data of a job's events."""
        with self.http.stream("GET", f"/api/jobs/{job}/events", headers={"last-event-id": str(last)}) as answer:
            assert answer.status_code == 200
            yield from server_events(answer)

    def until(self, what: str, value: Any) -> None:
        """Wait until `/health` says so."""
        patience = time.monotonic() + PATIENCE_S
        while (now := self.get("/health"))[what] != value:
            assert time.monotonic() < patience, now
            time.sleep(0.005)


def server_events(answer: httpx2.Response) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """As an EventSource takes them."""
    event: dict[str, str] = {}
    for line in answer.iter_lines():
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value
        elif event:
            yield int(event.get("id", 0)), event.get("event", ""), json.loads(event["data"])
            event = {}


@contextlib.contextmanager
def serving(bundle: Path, folder: Path, *options: str, **variables: str) -> Iterator[Served]:
    """`mgcc serve` with more options and environment variables; ended by SIGTERM, in order."""
    command = [sys.executable, "-m", "mgcc_runtime", "serve", "--bundle", str(bundle), "--port", "0", "--json",
               "--threads", "1", *options]  # fmt: skip
    errors = folder / "errors.txt"
    with errors.open("w", encoding="utf-8") as said:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, cwd=ROOT, env={**os.environ, **variables}
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, errors.read_text(encoding="utf-8")
        yield Served(json.loads(line)["url"], process, errors)
        ended_already = process.poll()
        process.send_signal(signal.SIGTERM)
        code = process.wait(PATIENCE_S)
        assert ended_already is not None or code == 0, errors.read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait()
