"""Who may ask: no foreign name, origin or session, and nobody without the key where there is one."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.exported import ROOT
from tests.kiosk.serving import OTHER_SESSION, SESSION, Served, serving

ANYWHERE = "0.0.0.0"  # noqa: S104 (that this needs a key is what is tested)
KEY = "a-key-of-the-tests-0123456789"


def told(answer: httpx2.Response, status: int, code: str) -> str:
    """The sentence of a refusal of this form."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert sorted(error) == ["code", "message", "param", "type"] and answer.headers["x-request-id"]
    sentence: str = error["message"]
    assert sentence and "\n" not in sentence
    return sentence


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8017", "127.0.0.1.evil.example", "", "localhost.evil"])
def test_a_foreign_host_is_refused(server: Served, host: str) -> None:
    told(server.http.get("/api/info", headers={"host": host}), 421, "foreign_host")
    told(server.http.get("/v1/models", headers={"host": host}), 421, "foreign_host")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8017", "[::1]:8017", "192.168.1.5"])
def test_addresses_and_localhost_are_taken(server: Served, host: str) -> None:
    assert server.http.get("/api/info", headers={"host": host}).is_success


@pytest.mark.parametrize(
    "headers",
    [{"origin": "http://evil.example"}, {"origin": "null"}, {"origin": "http://localhost:1"},
     {"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}],
)  # fmt: skip
def test_a_page_of_another_origin_is_refused(server: Served, headers: dict[str, str]) -> None:
    told(server.http.post("/api/chats", json={}, headers=headers), 403, "foreign_origin")
    told(server.http.get("/api/session", headers=headers), 403, "foreign_origin")


def test_the_own_page_is_taken_and_no_answer_allows_another(server: Served) -> None:
    for headers in ({"origin": server.url}, {"origin": server.url, "sec-fetch-site": "same-origin"}):
        answer = server.http.get("/api/info", headers=headers)
        assert answer.is_success and not [name for name in answer.headers if name.startswith("access-control")]
    preflight = server.http.options(
        "/api/chats", headers={"origin": server.url, "access-control-request-method": "POST"}
    )
    assert preflight.status_code == 405


def test_the_page_is_told_to_ask_nobody_else(server: Served) -> None:
    answer = server.http.get("/")
    assert answer.is_success and "text/html" in answer.headers["content-type"]
    assert answer.headers["content-security-policy"].startswith("default-src 'self'")
    for path in ("/../app.py", "/%2e%2e/app.py", "/..%2fsettings.py"):
        told(server.http.get(path), 404, "not_found")


def test_nothing_of_another_session_is_seen(server: Served) -> None:
    chat = server.chat()
    job = server.turn(chat, "A cat.")["id"]
    refused: list[tuple[str, str, Any]] = [
        ("GET", chat, None), ("DELETE", chat, None), ("POST", f"{chat}/turns", {"text": "A dog."}),
        ("POST", f"{chat}/turns/0/redraw", {"seed": 1}), ("GET", f"{chat}/turns/0/image", None),
        ("POST", f"{chat}/undo", {}), ("POST", f"{chat}/fork", {}), ("GET", f"{chat}/recipe", None),
        ("GET", f"/api/jobs/{job}", None), ("DELETE", f"/api/jobs/{job}", None),
        ("GET", f"/api/jobs/{job}/events", None),
    ]  # fmt: skip
    for method, path, body in refused:
        own = server.http.request(method, path, json=body) if method == "GET" else None
        assert own is None or own.is_success
        other = server.http.request(method, path, json=body, headers=OTHER_SESSION)
        sentence = told(other, 404, "not_found")
        missing = path.replace(chat, "/api/chats/none").replace(job, "none")
        assert told(server.http.request(method, missing, json=body), 404, "not_found") == sentence
    assert server.get("/api/session", headers=OTHER_SESSION) == {"chats": [], "jobs": []}
    assert len(server.get("/api/session")["chats"]) == 1


def test_a_browser_gets_a_session_of_its_own(server: Served) -> None:
    with httpx2.Client(base_url=server.url, trust_env=False) as browser:
        first = browser.post("/api/chats", json={})
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and len(browser.cookies["mgcc_session"]) >= 32
        assert len(browser.get("/api/session").json()["chats"]) == 1
        assert "set-cookie" not in browser.get("/api/session").headers
        assert browser.delete("/api/session").status_code == 204
        assert not browser.cookies and browser.get("/api/session").json()["chats"] == []


def test_a_session_cannot_be_named_as_another_clients(server: Served) -> None:
    """Clients without a name of their own have one that no header may say, nor a short one that may be guessed."""
    for name in ("client.abcdefghijklmnop", "short", "x" * 65, "with spaces in between"):
        for _ in range(2):
            with httpx2.Client(base_url=server.url, headers={"x-session-id": name}, trust_env=False) as http:
                assert http.get("/api/session").json() == {"chats": [], "jobs": []}
                assert http.post("/api/chats", json={}).is_success and http.delete("/api/session").is_success


def test_a_key_is_needed_where_there_is_one(tiny_bundle: Path, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(f"{KEY}\n", encoding="utf-8")
    key.chmod(stat.S_IRUSR)
    with serving(
        tiny_bundle, tmp_path, "--key-file", str(key), "--host", ANYWHERE, "--name", "Kiosk.Example"
    ) as served:
        url = served.url.replace(ANYWHERE, "127.0.0.1")
        with httpx2.Client(base_url=url, headers=SESSION, trust_env=False) as http:
            for given in ("", f"Bearer {KEY}x", "Bearer", f"{KEY[:-1]}", "Bearer \u00e9"):
                for path in ("/api/info", "/v1/models", "/metrics", "/api/session"):
                    told(http.get(path, headers={"authorization": given.encode()}), 401, "invalid_api_key")
            assert http.get("/health").is_success and http.get("/ready").is_success
            right = {"authorization": f"Bearer {KEY}"}
            assert http.get("/v1/models", headers=right).is_success
            assert http.get("/v1/models", headers={**right, "host": "kiosk.example"}).is_success
            told(http.get("/v1/models", headers={**right, "host": "other.example"}), 421, "foreign_host")


@pytest.mark.parametrize(
    ("options", "word"),
    [(["--host", ANYWHERE], "no key is set"), (["--host", "192.0.2.1"], "no key is set"),
     (["--port", "70000"], "port is 70000"), (["--limit-queue", "0"], "limit queue is 0"),
     (["--filter", "nothing:Here"], "nothing:Here"), (["--allowed-words", "none.txt"], "none.txt")],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_loaded(tiny_bundle: Path, options: list[str], word: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mgcc_runtime", "serve", "--bundle", str(tiny_bundle), *options],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and word in done.stderr and done.stderr.count("\n") == 1 and done.stdout == ""


def test_a_taken_port_is_said(tiny_bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "mgcc_runtime", "serve", "--bundle", str(tiny_bundle), "--port", port],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
    assert done.returncode == 1 and f"port {port} cannot be listened on" in done.stderr
