"""A small client of the server's own endpoints, of the standard library alone, and the server in its process."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mgcc_runtime.errors import OutputError

PATIENCE_S = 600.0
_IDLE_S = 15.0  # a kept connection that was idle for longer may be closed by the server, which keeps it for 30 s
_FIRST_REFUSAL = 400


class Refused(Exception):
    """The server's answer to a request that it did not take."""

    def __init__(self, status: int, error: dict[str, Any], retry_after_s: float) -> None:
        super().__init__(f"{status} {error.get('code')}: {error.get('message')}")
        self.status, self.code, self.retry_after_s = status, error.get("code"), retry_after_s


@dataclass
class Client:
    """One visitor, over one connection that is kept."""

    url: str
    session: str = field(default_factory=lambda: secrets.token_urlsafe(24))

    def __post_init__(self) -> None:
        self._connection, self._used_s = self._connect(), time.monotonic()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=PATIENCE_S)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer's JSON, None where there is none. Refused for an error status."""
        if time.monotonic() - self._used_s > _IDLE_S:
            self._connection.close()  # the next request opens it again
        answer = _send(self._connection, method, path, body, self.session)
        content = answer.read()
        self._used_s = time.monotonic()
        told = json.loads(content) if content and "json" in answer.headers.get("content-type", "") else None
        if answer.status >= _FIRST_REFUSAL:
            raise Refused(answer.status, (told or {}).get("error", {}), float(answer.headers.get("retry-after", 0)))
        return told

    def chat(self) -> str:
        """The path of a new chat."""
        return f"/api/chats/{self.ask('POST', '/api/chats', {})['id']}"

    def turn(self, chat: str, text: str, **more: Any) -> dict[str, Any]:
        """Send a turn; the data of its job's last event."""
        return self.end(self.ask("POST", f"{chat}/turns", {"text": text, **more})["id"])

    def end(self, job: str) -> dict[str, Any]:
        """The data of a job's last event, with its name."""
        *_, (name, data) = self.events(job)
        return {"end": name, **data}

    def events(self, job: str) -> Generator[tuple[str, dict[str, Any]], None, None]:
        """Names and data, over a connection of its own, which closing this iterator closes."""
        with self.stream("GET", f"/api/jobs/{job}/events") as answer:
            yield from _events(answer)

    @contextlib.contextmanager
    def stream(self, method: str, path: str, body: Any = None) -> Iterator[http.client.HTTPResponse]:
        connection = self._connect()
        try:
            yield _send(connection, method, path, body, self.session)
        finally:
            connection.close()

    def close(self) -> None:
        self._connection.close()


def _send(
    connection: http.client.HTTPConnection, method: str, path: str, body: Any, session: str
) -> http.client.HTTPResponse:
    content = None if body is None else json.dumps(body).encode()
    connection.request(method, path, content, {"content-type": "application/json", "x-session-id": session})
    return connection.getresponse()


def _events(answer: http.client.HTTPResponse) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in answer:
        key, _, value = line.decode().rstrip("\n").partition(": ")
        if key == "event":
            name = value
        elif key == "data":
            yield name, json.loads(value)


@dataclass
class Server:
    """`mgcc serve` of one bundle."""

    url: str
    process: subprocess.Popen[str]
    loaded_s: float  # from its start until the bundle is loaded
    ready_s: float  # from its start until its first answer and the page

    def kill(self) -> None:
        """End the process at once, as a power cut does."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(bundle: Path, threads: int, port: int = 0) -> Iterator[Server]:
    """A server, ended by SIGTERM; OutputError where it does not start."""
    command = [sys.executable, "-m", "mgcc_runtime", "serve", "--bundle", str(bundle), "--port", str(port), "--json",
               "--threads", str(threads)]  # fmt: skip
    roots = os.pathsep.join([*sys.path[:3], os.environ.get("PYTHONPATH", "")])
    started_s = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": roots})
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise OutputError("the server did not start, expected its address; it said why above")
        loaded_s = time.perf_counter() - started_s
        client = Client(json.loads(line)["url"])
        client.ask("GET", "/ready")
        with contextlib.suppress(Refused):  # a build without the page has no file there
            client.ask("GET", "/")
        client.close()
        yield Server(client.url, process, loaded_s, time.perf_counter() - started_s)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
