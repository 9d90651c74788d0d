"""Jobs: their events in order, listeners that come again, cancel, and pages that are gone."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2
import pytest

from tests.kiosk.endpoints.test_chats import opened
from tests.kiosk.serving import SESSION, Served, server_events, serving

LONG = {"text": "A cat.", "n": 10, "steps": 50}  # some seconds


def test_events_come_in_order(server: Served) -> None:
    chat = server.chat()
    job = server.post(f"{chat}/turns", {"text": "A cat.", "n": 2, "words": 4})
    assert job["state"] in ("queued", "running") and job["kind"] == "turn" and job["turn"] == 0
    found = list(server.events(job["id"]))
    names = [name for _, name, _ in found]
    assert [name for name in dict.fromkeys(names) if name != "text"] == [
        "queued",
        "reading",
        "boxes",
        "preview",
        "done",
    ]
    numbers = [number for number, _, _ in found]
    assert numbers == sorted(set(numbers)) and names.count("boxes") == 2
    previews = [data for _, name, data in found if name == "preview" and data["image"]]
    assert opened(previews[-1]["image"]).size == (32, 32) and previews[-1]["step"] == previews[-1]["steps"]
    done = found[-1][2]["result"]
    assert "".join(data["delta"] for _, name, data in found if name == "text") == done["text"]
    assert server.get(f"/api/jobs/{job['id']}")["result"] == done


def test_whoever_listens_again_gets_what_was_missed(server: Served) -> None:
    job = server.post(f"{server.chat()}/turns", {"text": "A cat."})["id"]
    lived = list(server.events(job))
    again = list(server.events(job))
    names = [name for _, name, _ in again]
    assert names.count("preview") == 1 and names[-1] == "done"  # of what is past, the last preview alone
    assert set(names) == {name for _, name, _ in lived} and all(event in lived for event in again)
    for last, _, _ in lived:
        assert list(server.events(job, last)) == [event for event in again if event[0] > last]


def test_a_job_survives_a_reload(server: Served) -> None:
    job = server.post(f"{server.chat()}/turns", {**LONG, "n": 3})["id"]
    seen = 0
    for number, name, _ in server.events(job):
        seen = number
        if name == "boxes":
            break  # the page is gone with its connection
    time.sleep(0.3)
    assert server.get("/api/session")["jobs"][-1]["id"] == job  # what the page finds when it is back
    rest = list(server.events(job, seen))
    assert rest[-1][1] == "done" and rest[0][0] > seen


def test_cancel(server: Served) -> None:
    """One that runs, and one that waits; neither waits for the other."""
    chat, other = server.chat(), server.chat()
    running, waiting = (server.post(f"{path}/turns", LONG)["id"] for path in (chat, other))
    told = server.get(f"/api/jobs/{waiting}")
    assert told["state"] == "queued" and told["position"] == 1
    assert server.http.delete(f"/api/jobs/{waiting}").json()["state"] == "cancelled"
    server.until("running", 1)
    assert server.http.delete(f"/api/jobs/{running}").is_success
    assert list(server.events(running))[-1][1] == "cancelled"
    assert server.turn(chat, "A dog.")["state"] == "done" and len(server.get(chat)["turns"]) == 1
    assert server.http.delete(f"/api/jobs/{running}").json()["state"] == "cancelled"  # once more is no error


def test_a_deleted_chat_or_session_takes_its_jobs_along(server: Served) -> None:
    chat = server.chat()
    job = server.post(f"{chat}/turns", LONG)["id"]
    assert server.http.delete(chat).status_code == 204
    assert server.done(job)["state"] == "cancelled"
    job = server.post(f"{server.chat()}/turns", LONG)["id"]
    assert server.http.delete("/api/session").status_code == 204
    server.until("running", 0)
    assert server.http.get(f"/api/jobs/{job}").status_code == 404


def test_a_job_of_a_page_that_is_gone_ends(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, tmp_path, "--limit-grace-s", "0.4") as served:
        job = served.post(f"{served.chat()}/turns", LONG)["id"]
        served.until("running", 1)
        served.until("cancelled", 1)
        assert served.get(f"/api/jobs/{job}")["state"] == "cancelled"


def test_a_client_that_leaves_frees_the_worker(server: Served) -> None:
    """In mid-stream, and in a request that is no stream: long before the job would have been done."""
    body = {"prompt": "A cat.", "n": 10, "steps": 50}
    before, streamed = server.get("/health")["cancelled"], {**body, "stream": True, "partial_images": 3}
    with server.http.stream("POST", "/v1/images/generations", json=streamed) as answer:
        next(server_events(answer))
    server.until("cancelled", before + 1)
    impatient = httpx2.Client(base_url=server.url, headers=SESSION, timeout=0.5, trust_env=False)
    with impatient as http, pytest.raises(httpx2.ReadTimeout):
        http.post("/v1/images/generations", json=body)
    server.until("cancelled", before + 2)
    assert server.get("/health")["running"] == 0


def test_a_job_that_runs_too_long_ends(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, tmp_path, "--limit-time-s", "0.3") as served:
        job = served.done(served.post(f"{served.chat()}/turns", LONG)["id"])
        assert job["state"] == "error" and job["error"]["code"] == "time_limit"
        answer = served.http.post("/v1/images/generations", json={"prompt": "A cat.", "n": 10, "steps": 50})
        assert answer.status_code == 504 and answer.headers["x-should-retry"] == "false"
