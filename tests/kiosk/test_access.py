"""A server with a key: what a visitors' screen may, what staff may, and stories that phones fetch."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from mgcc_kiosk.access import Door, door_of, pass_of
from mgcc_runtime import OptionError
from tests.kiosk.endpoints.test_jobs import LONG
from tests.kiosk.serving import Served, serving
from tests.kiosk.test_security import KEY, told

PHONE_URL = "http://kiosk.example:8017"
STAFF = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def locked(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """With a key, and an address for phones."""
    options = ("--phone-url", f"{PHONE_URL}/", "--limit-takeaway-s", "2", "--limit-megapixels", "0.1")
    with serving(tiny_bundle, tmp_path_factory.mktemp("locked"), *options, MGCC_API_KEY=KEY) as served:
        yield served


@pytest.fixture
def screen(locked: Served) -> Iterator[httpx2.Client]:
    """A browser that staff have let in."""
    with httpx2.Client(base_url=locked.url, timeout=60, trust_env=False) as browser:
        assert browser.post("/api/pass", json={}, headers=STAFF).status_code == 204
        yield browser
        browser.delete("/api/session")


@pytest.fixture
def staff(locked: Served) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=locked.url, headers=STAFF, timeout=60, trust_env=False) as found:
        yield found


def test_doors() -> None:
    doors = {
        "/": Door.OPEN, "/staff.html": Door.OPEN, "/health": Door.OPEN, "/take/x": Door.OPEN, "/metrics": Door.KEY,
        "/api/info": Door.PAGE, "/api/pass": Door.PAGE, "/v1/models": Door.KEY, "/api/staff": Door.STAFF,
        "/api/staff/jobs/x": Door.STAFF,
    }  # fmt: skip
    assert {path: door_of(path) for path in doors} == doors


def test_a_screen_that_was_let_in_opens_the_page_alone(locked: Served, screen: httpx2.Client) -> None:
    assert screen.get("/api/info").json()["staff"] is True
    assert screen.post("/api/chats", json={}).status_code == 201 and screen.get("/api/session").json()["chats"]
    for path in ("/v1/models", "/metrics", "/api/staff"):
        told(screen.get(path), 401, "invalid_api_key")
    with httpx2.Client(base_url=locked.url, trust_env=False) as stranger:
        told(stranger.get("/api/info"), 401, "invalid_api_key")
        assert stranger.get("/").is_success and stranger.get("/staff.html").is_success


def test_the_pass(locked: Served) -> None:
    """In a cookie that no script and no other page reads; the same after a restart, and of this key alone."""
    with httpx2.Client(base_url=locked.url, trust_env=False) as browser:
        answer = browser.post("/api/pass", json={}, headers={"authorization": f"Bearer {pass_of(KEY)}"})
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie and "samesite=strict" in cookie.lower() and "Path=/api" in cookie
        assert browser.cookies["mgcc_pass"] == pass_of(KEY) and KEY not in cookie
        assert browser.get("/api/info").is_success
        for wrong in (pass_of(f"{KEY}x"), KEY[:-1], "\u00e9"):
            told(
                browser.post("/api/pass", json={}, headers={"authorization": f"Bearer {wrong}".encode()}),
                401,
                "invalid_api_key",
            )
        foreign = {"origin": "http://evil.example", **STAFF}
        told(browser.post("/api/pass", json={}, headers=foreign), 403, "foreign_origin")
        told(browser.delete("/api/staff/pass"), 401, "invalid_api_key")  # no visitor locks the screen
        assert browser.delete("/api/staff/pass", headers=STAFF).status_code == 204
        told(browser.get("/api/info"), 401, "invalid_api_key")
    with httpx2.Client(base_url=locked.url, trust_env=False, cookies={"mgcc_pass": pass_of(f"{KEY}x")}) as other:
        told(other.get("/api/info"), 401, "invalid_api_key")
    bearer = {"authorization": f"Bearer {pass_of(KEY)}"}  # the pass is no key
    for path in ("/api/info", "/v1/models", "/api/staff"):
        told(locked.http.get(path, headers=bearer), 401, "invalid_api_key")


def test_staff_see_no_visitor_and_can_begin_a_session_anew(screen: httpx2.Client, staff: httpx2.Client) -> None:
    chat = screen.post("/api/chats", json={}).json()["id"]
    jobs = [screen.post(f"/api/chats/{chat}/turns", json=LONG).json()["id"] for _ in range(2)]
    seen = staff.get("/api/staff")
    overview = seen.json()
    assert overview["health"]["ready"] and [job["kind"] for job in overview["jobs"]] == ["turn", "turn"]
    (session,) = overview["sessions"]
    assert session["chats"] == 1 and {job["session"] for job in overview["jobs"]} == {session["tag"]}
    for hidden in (chat, *jobs, LONG["text"], screen.cookies["mgcc_session"], KEY):
        assert hidden not in seen.text
    assert overview["link"]["url"].endswith(f"/#pass={pass_of(KEY)}") and overview["link"]["qr"].startswith("<svg")

    assert staff.delete(f"/api/staff/jobs/{overview['jobs'][1]['tag']}").status_code == 204
    assert screen.get(f"/api/jobs/{jobs[1]}").json()["state"] == "cancelled"
    assert screen.post("/api/heartbeat", json={}).status_code == 204
    assert staff.delete(f"/api/staff/sessions/{session['tag']}").status_code == 204
    assert screen.get("/api/session").json() == {"chats": [], "jobs": []}
    assert [screen.post("/api/heartbeat", json={}).status_code for _ in range(2)] == [205, 204]
    for path in (f"/api/staff/sessions/{session['tag']}", "/api/staff/jobs/none"):
        told(staff.delete(path), 404, "not_found")


def test_without_a_key_nobody_is_staff(server: Served) -> None:
    assert "no key" in told(server.http.get("/api/staff", headers=STAFF), 401, "invalid_api_key")
    told(server.http.delete("/api/staff/sessions/x"), 401, "invalid_api_key")
    assert "set-cookie" not in server.http.post("/api/pass", json={}).headers
    assert server.get("/api/info")["staff"] is server.get("/api/info")["phones"] is False
    told(server.http.post("/api/takeaways", content=story(), headers=PNG), 404, "not_found")


PNG = {"content-type": "image/png"}


def story(width: int = 200, height: int = 300) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "teal").save(buffer, "PNG", pnginfo=None)
    return buffer.getvalue()


def test_a_story_goes_to_a_phone_for_a_while(locked: Served, screen: httpx2.Client) -> None:
    """The phone has nothing but the address. What it gets is a picture of the server's own making."""
    made = screen.post("/api/takeaways", content=story() + b"<script>", headers=PNG)
    assert made.status_code == 201 and made.json()["qr"].startswith("<svg") and made.json()["kept_s"] == 2
    url = made.json()["url"]
    assert url.startswith(f"{PHONE_URL}/take/") and len(url.rpartition("/")[2]) >= 20
    with httpx2.Client(base_url=locked.url, headers={"host": "kiosk.example:8017"}, trust_env=False) as phone:
        path = url.removeprefix(PHONE_URL)
        got = phone.get(path)
        assert got.headers["content-type"] == "image/png" and "'none'" in got.headers["content-security-policy"]
        assert b"<script>" not in got.content and Image.open(io.BytesIO(got.content)).size == (200, 300)
        second = screen.post("/api/takeaways", content=story(), headers=PNG).json()["url"].removeprefix(PHONE_URL)
        told(phone.get(path), 404, "not_found")  # one for each visitor
        screen.delete("/api/session")
        assert phone.get(second).is_success  # the visitor was told that it waits
        patience = time.monotonic() + 60
        while phone.get(second).is_success:
            assert time.monotonic() < patience
            time.sleep(0.1)
        told(phone.get(second), 404, "not_found")
        told(phone.get("/take/none"), 404, "not_found")


def test_only_pictures_are_taken_along(locked: Served, screen: httpx2.Client) -> None:
    told(
        screen.post("/api/takeaways", content=b"<html>", headers={"content-type": "text/html"}),
        415,
        "unsupported_media_type",
    )
    told(screen.post("/api/takeaways", content=b"<html>", headers=PNG), 400, "invalid_request")
    told(screen.post("/api/takeaways", content=story(400, 300), headers=PNG), 413, "image_too_large")
    told(locked.http.post("/api/takeaways", content=story(), headers=PNG), 401, "invalid_api_key")


@pytest.mark.parametrize(
    "url", ["kiosk:8017", "ftp://kiosk", "http://", "http://kiosk/page", "http://kiosk?x", "http://[::1"]
)
def test_an_address_for_phones_is_an_origin(url: str) -> None:
    from mgcc_kiosk.cli import _phone_url

    with pytest.raises(OptionError, match="phone URL is"):
        _phone_url(url)
