"""The recipes of examples/scale: two real servers behind nginx and HAProxy, one of them killed in mid-dialogue."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import pytest

from tests import debian
from tests.exported import ROOT
from tests.kiosk.serving import PATIENCE_S, Served, serving

pytestmark = pytest.mark.slow
SCALE = ROOT / "examples" / "scale"
KEPT = Path(sys.prefix) / "debian"
#: Program, Debian's packages of it, the program's file in them, and what has it say its version.
PROXIES = {
    "nginx": (("nginx-light",), "usr/sbin/nginx", "-v"),
    "haproxy": (("haproxy",), "usr/sbin/haproxy", "-v"),
}
VISITORS = [f"visitor-number-{number:04}" for number in range(12)]


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def proxied(name: str, servers: list[Served], folder: Path) -> Iterator[str]:
    """The recipe's own file with other ports; gives the URL of the proxy."""
    packages, file, version = PROXIES[name]
    try:
        program = debian.installed(KEPT / name, name, packages, file, version)
    except debian.Unavailable as missing:
        pytest.skip(str(missing))
    (source,) = SCALE.glob(f"{name}.*")
    ports = {8017: free_port(), **dict(zip((8018, 8019), (s.url.rpartition(":")[2] for s in servers), strict=True))}
    text = source.read_text(encoding="utf-8")
    for port, other in ports.items():
        assert text.count(f"127.0.0.1:{port}") == 1
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{other}")
    if name == "nginx" and os.getuid() == 0:
        text = f"user root;\n{text}"
    (folder / source.name).write_text(text, encoding="utf-8")
    words = {
        "nginx": ["-p", folder, "-c", folder / source.name, "-g", "daemon off;"],
        "haproxy": ["-f", folder / source.name],
    }
    process = subprocess.Popen(
        [program.path, *words[name]], env={**os.environ, **program.environment}, stderr=(folder / "said").open("w")
    )
    url = f"http://127.0.0.1:{ports[8017]}"
    try:
        until_ready(url, folder / "said")
        yield url
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def until_ready(url: str, said: Path) -> None:
    patience = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(httpx2.HTTPError):
            if httpx2.get(f"{url}/ready", trust_env=False).is_success:
                return
        assert time.monotonic() < patience, said.read_text()
        time.sleep(0.05)


@dataclass
class Dialogue:
    """Of one visitor, after its first turn."""

    visitor: Served
    chat: str
    recipe: object
    next_picture: str  # what the second turn draws


def visitor_of(name: str, url: str, server: Served) -> Served:
    visitor = replace(server, url=url)
    visitor.http.headers["x-session-id"] = name
    return visitor


def known_to(server: Served, visitor: Served) -> bool:
    direct = visitor_of(visitor.http.headers["x-session-id"], server.url, server)
    return bool(direct.get("/api/session")["chats"])


def begun(visitor: Served) -> Dialogue:
    chat = visitor.chat()
    visitor.turn(chat, "A cat.")
    aside = f"/api/chats/{visitor.post(f'{chat}/fork')['id']}"
    return Dialogue(visitor, chat, visitor.get(f"{chat}/recipe"), second_turn(visitor, aside))


def second_turn(visitor: Served, chat: str) -> str:
    done = visitor.turn(chat, "A dog is here.", seed=3)
    picture: str = done["result"]["pictures"][0]["image"]
    return picture


def taken_over(dialogue: Dialogue) -> str:
    """The chat as it goes on from its recipe, on a server that had never heard of it."""
    patience = time.monotonic() + PATIENCE_S
    while not (answer := dialogue.visitor.http.post("/api/chats", json={"recipe": dialogue.recipe})).is_success:
        assert answer.status_code in (502, 503) and time.monotonic() < patience, answer.text
        time.sleep(0.1)
    return f"/api/chats/{answer.json()['id']}"


def found_by_its_id_alone(proxy: str, visitor: Served) -> None:
    """A response, by a client that names no session: in the path, and by HAProxy also in the body."""
    asked = {"input": "A cat.", "tool_choice": "required"}
    first = visitor.post("/v1/responses", asked)
    with httpx2.Client(base_url=visitor.url, timeout=PATIENCE_S, trust_env=False) as stranger:
        assert stranger.get(f"/v1/responses/{first['id']}").json()["output"] == first["output"]
        if proxy == "haproxy":
            more = stranger.post("/v1/responses", json={**asked, "previous_response_id": first["id"]})
            assert more.is_success and more.json()["id"].endswith(visitor.http.headers["x-session-id"])
        assert stranger.delete(f"/v1/responses/{first['id']}").is_success


@pytest.mark.parametrize("proxy", PROXIES)
def test_a_visitor_stays_with_a_server_and_outlives_it(proxy: str, tiny_bundle: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with (
        serving(tiny_bundle, tmp_path / "one") as one,
        serving(tiny_bundle, tmp_path / "two") as two,
        proxied(proxy, [one, two], tmp_path) as url,
    ):
        visitors = [visitor_of(name, url, one) for name in VISITORS]
        for visitor in [*visitors, *visitors]:
            visitor.chat()
        assert {len(visitor.get("/api/session")["chats"]) for visitor in visitors} == {2}, "each found its server again"
        first = [v for v in visitors if known_to(one, v)]
        assert 2 <= len(first) <= len(visitors) - 2, "one server has nearly all visitors"
        for visitor in visitors:
            found_by_its_id_alone(proxy, visitor)

        loses, keeps = begun(first[0]), begun(next(v for v in visitors if v not in first))
        one.process.send_signal(signal.SIGKILL)
        one.process.wait(PATIENCE_S)
        assert second_turn(keeps.visitor, keeps.chat) == keeps.next_picture
        assert second_turn(loses.visitor, taken_over(loses)) == loses.next_picture
