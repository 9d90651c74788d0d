"""The server on Ray Serve: two replicas, one killed in mid-dialogue; nothing is lost but what was in flight."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.exported import ROOT
from tests.kiosk.endpoints.test_jobs import LONG
from tests.kiosk.serving import PATIENCE_S, Served
from tests.kiosk.test_scale import Dialogue, begun, free_port, second_turn, taken_over, visitor_of

pytest.importorskip("ray", reason="ray is not installed; pip install '.[scale]' lets this run")
pytestmark = pytest.mark.slow

START_S = 240  # it takes 30 on two quiet cores
VISITORS = [f"visitor-number-{number:04}" for number in range(8)]
SAID = b"A dog is here."  # what every dialogue goes on with


@contextlib.contextmanager
def on_ray(bundle: Path, scratch: str, said: Path) -> Iterator[Served]:
    """Two replicas; ended by SIGTERM, in order."""
    command = [
        sys.executable, "-m", "mgcc_kiosk.on_ray", "--bundle", str(bundle), "--replicas", "2", "--threads", "1",
        "--port", str(free_port()), "--scratch", scratch, "--cpus", "0", "--json",
    ]  # fmt: skip
    with said.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT)
    assert process.stdout is not None
    killer = threading.Timer(START_S, process.kill)
    killer.start()
    try:
        line = process.stdout.readline()
        killer.cancel()
        assert line, said.read_text()
        yield Served(json.loads(line)["url"], process, said)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, said.read_text()
    finally:
        killer.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_S)


def replicas_of(process: subprocess.Popen[str]) -> list[int]:
    """Their process ids: below the one that was started, by the name that Ray gives them."""
    parents, names = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            status = (folder / "status").read_text(errors="replace")
            parents[int(folder.name)] = int(status.partition("PPid:")[2].split()[0])
            names[int(folder.name)] = (folder / "cmdline").read_bytes()

    def is_ours(pid: int) -> bool:
        return pid == process.pid or (pid in parents and is_ours(parents[pid]))

    return [pid for pid, name in names.items() if b"ServeReplica" in name and is_ours(pid)]


@dataclass
class InFlight:
    """A request whose answer comes bit by bit, in a thread of its own."""

    visitor: Served
    begun: threading.Event = field(default_factory=threading.Event)
    lost: threading.Event = field(default_factory=threading.Event)  # broken off before its end
    unwanted: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        assert self.begun.wait(PATIENCE_S)

    def _listen(self) -> None:
        asked = {"prompt": LONG["text"], "n": 10, "steps": 50, "stream": True, "partial_images": 3}
        headers = {"x-session-id": self.visitor.http.headers["x-session-id"]}
        with (
            contextlib.suppress(httpx2.HTTPError),
            httpx2.Client(base_url=self.visitor.url, headers=headers, timeout=PATIENCE_S, trust_env=False) as http,
            http.stream("POST", "/v1/images/generations", json=asked) as answer,
        ):
            for _ in answer.iter_lines():
                self.begun.set()
                if self.unwanted.is_set():
                    return
        self.lost.set()


def gone_on(dialogue: Dialogue) -> tuple[bool, str]:
    """Whether the chat was still known, and the second turn's picture."""
    visitor, chat = dialogue.visitor, dialogue.chat
    known = visitor.http.get(chat).is_success
    return known, second_turn(visitor, chat if known else taken_over(dialogue))


def answered(visitor: Served, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = visitor.post("/v1/responses", {"input": SAID.decode(), "tool_choice": "required", **more})
    return found


def pictures(response: dict[str, Any]) -> list[str]:
    return [item["result"] for item in response["output"] if item["type"] == "image_generation_call"]


def check_affinity(server: Served, visitors: list[Served]) -> None:
    """By the header, by a browser's cookie, and by a response's id alone."""
    for visitor in [*visitors, *visitors]:
        visitor.chat()
    assert {len(visitor.get("/api/session")["chats"]) for visitor in visitors} == {2}
    with httpx2.Client(base_url=server.url, timeout=PATIENCE_S, trust_env=False) as browser:
        assert browser.get("/api/info").is_success and browser.get("/").is_success
        for _ in range(6):
            assert browser.post("/api/chats", json={}).is_success
        assert len(browser.get("/api/session").json()["chats"]) == 6
    for visitor in visitors[:4]:
        first = answered(visitor)
        with httpx2.Client(base_url=server.url, timeout=PATIENCE_S, trust_env=False) as stranger:
            assert stranger.get(f"/v1/responses/{first['id']}").is_success
            more = {"input": "A dog.", "tool_choice": "required", "previous_response_id": first["id"]}
            assert stranger.post("/v1/responses", json=more).is_success


def test_a_replica_dies_in_mid_dialogue(tiny_bundle: Path, tmp_path: Path) -> None:
    # short: Ray's sockets lie in it, whose names have 107 characters at most
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as scratch:
        with on_ray(tiny_bundle, scratch, tmp_path / "said") as server:
            visitors = [visitor_of(name, server.url, server) for name in VISITORS]
            check_affinity(server, visitors)
            dialogues = [begun(visitor) for visitor in visitors]
            first = [answered(visitor, recipe=True) for visitor in visitors]
            second = [answered(v, previous_response_id=r["id"]) for v, r in zip(visitors, first, strict=True)]
            requests = [InFlight(visitor) for visitor in visitors]

            replicas = replicas_of(server.process)
            assert len(replicas) == 2
            os.kill(replicas[0], signal.SIGKILL)
            patience = time.monotonic() + PATIENCE_S
            while not any(request.lost.is_set() for request in requests):
                assert time.monotonic() < patience
                time.sleep(0.05)
            for request in requests:
                request.unwanted.set()

            found = [gone_on(dialogue) for dialogue in dialogues]
            assert [picture for _, picture in found] == [dialogue.next_picture for dialogue in dialogues]
            assert 0 < sum(known for known, _ in found) < len(found), "one replica had all visitors, or none is dead"
            for visitor, one, two in zip(visitors, first, second, strict=True):
                again = answered(visitor, previous_response_id=one["id"], recipe=one["recipe"])
                assert pictures(again) == pictures(two)
        assert [path for path in Path(scratch).rglob("*") if path.is_file() and SAID in path.read_bytes()] == []
