"""Every limit with its status, its code and its sentence; and two sessions that take turns."""

from __future__ import annotations

import base64
import io
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from mgcc_kiosk.settings import Limits
from mgcc_runtime import OptionError
from tests.kiosk.endpoints.test_chats import data_url
from tests.kiosk.endpoints.test_jobs import LONG
from tests.kiosk.serving import OTHER_SESSION, SESSION, Served, serving
from tests.kiosk.test_security import told

SMALL = {"body_mb": 0.05, "body_s": 0.5, "parts": 3, "text_chars": 100, "megapixels": 0.01, "pictures": 10, "turns": 2,
         "chats": 2, "jobs": 3, "queue": 4, "sessions": 3}  # fmt: skip


@pytest.fixture(scope="module")
def small(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    options = [word for name, value in SMALL.items() for word in (f"--limit-{name.replace('_', '-')}", str(value))]
    with serving(tiny_bundle, tmp_path_factory.mktemp("small"), *options) as served:
        yield served


@pytest.fixture(autouse=True)
def _empty(small: Served) -> Iterator[None]:
    yield
    for session in (SESSION, OTHER_SESSION):
        small.http.delete("/api/session", headers=session)
    small.until("running", 0)


def test_limits_are_told(small: Served) -> None:
    limits = small.get("/api/info")["limits"]
    assert (limits["body_bytes"], limits["pixels"], limits["turns"]) == (50_000, 10_000, 2)


def test_what_is_too_large(small: Served) -> None:
    turns = f"{small.chat()}/turns"
    told(small.http.post(turns, json={"text": "x" * 60_000}), 413, "body_too_large")
    told(small.http.post(turns, json={"text": "x" * 101}), 400, "invalid_request")
    told(small.http.post(turns, json={"parts": [{"text": "A"}] * 4}), 400, "invalid_request")
    wide = data_url(Image.new("RGB", (101, 100)))
    told(small.http.post(turns, json={"parts": [{"text": "A"}, {"image": wide}]}), 413, "image_too_large")
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")  # 110 KB of a picture that would take 900 MB
    bomb = {"image": ("a.png", buffer.getvalue()[:40_000])}
    told(small.http.post("/v1/images/edits", files=bomb, data={"prompt": "A cat."}), 413, "image_too_large")
    chunks = (b"x" * 1000 for _ in range(60))  # without a length told before
    typed = {"content-type": "application/json"}
    told(small.http.post(turns, content=chunks, headers=typed), 413, "body_too_large")


def test_what_a_recipe_may_not_bring(small: Served) -> None:
    """It goes round no limit of a turn's."""
    chat = small.chat()
    small.turn(chat, "A cat.")
    recipe = small.get(f"{chat}/recipe")
    buffer = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(buffer, "PNG")
    bomb = {"image": base64.b64encode(buffer.getvalue()[:30_000]).decode()}
    for parts, status, code in (
        ([{"text": "A"}] * 4, 400, "invalid_request"), ([{"text": "x" * 101}], 400, "invalid_request"),
        ([{"text": "A"}, bomb], 413, "image_too_large"), ([{"text": "A"}, {"image": 5}], 400, "invalid_request"),
        ([{"text": 5}], 400, "invalid_request"), (5, 400, "invalid_request"), ([], 400, "invalid_request"),
    ):  # fmt: skip
        wrong = {**recipe, "turns": [{**recipe["turns"][0], "parts": parts}]}
        told(small.http.post("/api/chats", json={"recipe": wrong}), status, code)
    long = {**recipe, "turns": recipe["turns"] * 3}
    assert "3 turns" in told(small.http.post("/api/chats", json={"recipe": long}), 400, "invalid_request")
    assert small.http.post("/api/chats", json={"recipe": recipe}).is_success


def test_a_body_that_does_not_come(small: Served) -> None:
    host, port = small.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        head = (
            f"POST /api/chats HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n"
        )
        slow.sendall(f"{head}{{".encode())
        began = time.monotonic()
        answer = slow.recv(65536).decode()
        assert "408" in answer.splitlines()[0] and time.monotonic() - began < 10


def test_chats_and_turns(small: Served) -> None:
    chat = small.chat()
    small.chat()
    assert "delete one" in told(small.http.post("/api/chats", json={}), 409, "too_many_chats")
    told(small.http.post(f"{chat}/fork", json={}), 409, "too_many_chats")
    assert small.turn(chat, "A cat.")["state"] == small.turn(chat, "A dog.")["state"] == "done"
    told(small.http.post(f"{chat}/turns", json={"text": "A bird."}), 409, "too_many_turns")
    small.post(f"{chat}/undo")
    assert small.turn(chat, "A bird.")["state"] == "done"


def test_jobs_queue_and_sessions(small: Served) -> None:
    mine = small.chat()
    jobs = [small.post(f"{mine}/turns", LONG)["id"] for _ in range(2)]
    told(small.http.post(f"{mine}/turns", json=LONG), 409, "too_many_turns")
    jobs.append(small.post(f"{small.chat()}/turns", LONG)["id"])
    refused = small.http.post("/v1/images/generations", json={"prompt": "A cat."})
    told(refused, 429, "too_many_jobs")
    assert int(refused.headers["retry-after"]) >= 1
    other = f"/api/chats/{small.post('/api/chats', headers=OTHER_SESSION)['id']}"
    for _ in range(2):
        assert small.http.post(f"{other}/turns", json=LONG, headers=OTHER_SESSION).status_code == 202
    third = {"x-session-id": "a-third-one-of-these-visitors"}
    full = small.http.post("/v1/images/generations", json={"prompt": "A cat."}, headers=third)
    told(full, 429, "queue_full")
    assert int(full.headers["retry-after"]) >= 1
    told(
        small.http.post("/api/chats", json={}, headers={"x-session-id": "a-fourth-one-of-them"}),
        429,
        "too_many_sessions",
    )
    assert small.get("/health")["queue"] == 4
    places = [small.get(f"/api/jobs/{job}")["position"] for job in jobs]
    assert places == [0, 1, 3]  # the other session's first stands before this one's third
    small.http.delete("/api/session", headers=third)


def test_a_session_that_is_not_used_is_forgotten(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, tmp_path, "--limit-idle-s", "0.3", "--limit-keep-s", "0.2") as served:
        chat = served.chat()
        served.turn(chat, "A cat.")
        assert served.get("/health")["chats"] == 1
        served.until("sessions", 0)
        told(served.http.get(chat), 404, "not_found")
        assert served.get("/health")["chat_bytes"] == 0


def test_limits_are_numbers_above_zero() -> None:
    assert json.dumps(Limits(queue=5.0).queue) == "5" and Limits(grace_s=0.5).grace_s == 0.5
    for wrong in (0, -1, float("nan"), float("inf"), "5", True):
        with pytest.raises(OptionError, match="limit queue is"):
            Limits(queue=wrong)  # type: ignore[arg-type]
