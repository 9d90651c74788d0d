"""Running it: health while it draws, numbers, an orderly end, the watchdog, and nothing of a visitor's on the disk."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2
import pytest

from mgcc_benchmarks.serving.installed import added_mb
from tests.exported import ROOT
from tests.kiosk.endpoints.test_chats import data_url
from tests.kiosk.endpoints.test_jobs import LONG
from tests.kiosk.serving import PATIENCE_S, SESSION, Served, serving
from tests.kiosk.test_security import told
from tests.runtime.golden_data import gradient

SECRET = "Zwiebelkuchen"  # what a visitor wrote
EXTRA_MB = 8  # that the extra `serve` may add


def test_health_is_answered_while_it_draws(server: Served) -> None:
    job = server.post(f"{server.chat()}/turns", LONG)["id"]
    server.until("running", 1)
    began = time.monotonic()
    told_of = server.get("/health")
    assert server.get("/ready") == {"ready": True} and time.monotonic() - began < 1
    assert told_of["status"] == "ok" and told_of["running"] == 1 and told_of["worker_busy_s"] >= 0
    assert told_of["rss_mb"] > 20 and server.get(f"/api/jobs/{job}")["state"] == "running"


def test_heartbeat(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, tmp_path) as served:
        assert served.get("/health")["page_heartbeat_s"] is None
        assert served.http.post("/api/heartbeat", json={}).status_code == 204
        assert 0 <= served.get("/health")["page_heartbeat_s"] < 5


def test_metrics_are_prometheus_text(server: Served) -> None:
    server.turn(server.chat(), "A cat.")
    server.http.get("/api/chats/none")
    text = server.http.get("/metrics").text
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) mgcc_\w+ .+|mgcc_\w+(\{\w+=\"[^\"]+\"\})? [0-9.]+", line), line
    numbers = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(numbers['mgcc_jobs_total{end="done"}']) >= 1 and int(numbers["mgcc_pictures_total"]) >= 1
    assert numbers["mgcc_job_seconds_count"] == numbers['mgcc_job_seconds_bucket{le="+Inf"}']
    assert int(numbers['mgcc_refused_total{code="not_found"}']) >= 1


def test_an_orderly_end(tiny_bundle: Path, tmp_path: Path) -> None:
    """The running job is finished and told; what waits is told that it is not; nobody hangs on a stream."""
    with serving(tiny_bundle, tmp_path, "--limit-drain-s", "30") as served:
        first = served.post(f"{served.chat()}/turns", {**LONG, "n": 2})["id"]
        second = served.post(f"{served.chat()}/turns", LONG)["id"]
        ends: dict[str, str] = {}
        listeners = [threading.Thread(target=_end_of, args=(served.url, job, ends)) for job in (first, second)]
        for listener in listeners:
            listener.start()
        served.until("running", 1)
        time.sleep(0.2)  # both listen
        served.process.send_signal(signal.SIGTERM)
        for listener in listeners:
            listener.join(PATIENCE_S)
        assert ends == {first: "done", second: "error"}
        assert served.process.wait(PATIENCE_S) == 0


def _end_of(url: str, job: str, ends: dict[str, str]) -> None:
    served = Served(url, subprocess.Popen(["true"], text=True), Path())
    ends[job] = list(served.events(job))[-1][1]


def test_a_job_that_takes_too_long_to_end_is_cancelled(tiny_bundle: Path, tmp_path: Path) -> None:
    with serving(tiny_bundle, tmp_path, "--limit-drain-s", "0.2") as served:
        served.post(f"{served.chat()}/turns", LONG)
        served.until("running", 1)
        began = time.monotonic()
        served.process.send_signal(signal.SIGTERM)
        assert served.process.wait(PATIENCE_S) == 0 and time.monotonic() - began < 10


def test_nothing_of_a_visitor_is_on_the_disk_or_said(tiny_bundle: Path, tmp_path: Path) -> None:
    """Texts, pictures and ids: not in files that the server has opened or left, not in what it logs, not in metrics."""
    home = tmp_path / "home"
    home.mkdir()
    places = {name: str(home) for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "MGCC_CACHE")}
    with serving(tiny_bundle, tmp_path, **places) as served:
        chat = served.chat()
        served.turn(chat, f"A cat eats {SECRET}.")
        picture = gradient(1200, 1100)
        served.done(served.post(f"{chat}/turns", {"parts": [{"text": SECRET}, {"image": data_url(picture)}]})["id"])
        big = {"image": ("a.png", _noise_png())}  # above what forms usually keep in memory
        assert served.http.post("/v1/images/edits", files=big, data={"prompt": SECRET}).is_success
        served.http.post("/v1/images/generations", json={"prompt": SECRET, "size": "x"})
        served.get(f"{chat}/recipe")
        opened = _open_files(served.process.pid)
        assert not [name for name in opened if "deleted" in name or name.startswith(str(home))], opened
        assert SECRET not in served.http.get("/metrics").text + served.http.get("/health").text
        said = served.errors.read_text(encoding="utf-8")
        assert said == ""
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert [path for path in home.rglob("*") if path.is_file()] == []


def _noise_png() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.frombytes("RGB", (900, 900), os.urandom(900 * 900 * 3)).save(buffer, "PNG")
    assert len(buffer.getvalue()) > 2_000_000
    return buffer.getvalue()


def _open_files(pid: int) -> list[str]:
    found = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return [name for name in found if name.startswith("/") and not name.startswith(("/dev", "/proc"))]


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no UNIX sockets here; where systemd is, it runs")
def test_the_watchdog_is_fed(tiny_bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place))
        manager.settimeout(PATIENCE_S)
        with serving(tiny_bundle, tmp_path, NOTIFY_SOCKET=str(place), WATCHDOG_USEC="600000"):
            said = [manager.recv(64).decode() for _ in range(4)]
        assert said == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]
        while (word := manager.recv(64).decode()) == "WATCHDOG=1":
            pass
        assert word == "STOPPING=1"


def test_a_server_that_hangs_is_not_ready(tiny_bundle: Path, tmp_path: Path) -> None:
    """The worker is in a long job and gives no sign for longer than is allowed: no more food for the watchdog."""
    options = ("--limit-hang-s", "0.000001")
    with serving(tiny_bundle, tmp_path, *options) as served:
        assert served.get("/ready") == {"ready": True}  # it waits for work, which is no hanging
        served.post(f"{served.chat()}/turns", LONG)
        served.until("running", 1)
        told(served.http.get("/ready"), 503, "not_ready")
        assert served.http.get("/health").is_success


def test_without_the_extra_one_sentence_says_so(tiny_bundle: Path) -> None:
    code = (
        "import sys\nsys.modules['uvicorn'] = None\nfrom mgcc_runtime.cli import main\n"
        f"sys.exit(main(['serve', '--bundle', {str(tiny_bundle)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "mgcc: mgcc serve needs the package uvicorn, which is not installed; pip install 'mgcc-edge[serve]'\n"
    )


def test_the_extra_is_small() -> None:
    size_mb, added = added_mb("serve")
    assert {"starlette", "uvicorn", "python-multipart"} <= set(added) and 0.5 < size_mb <= EXTRA_MB
    assert "numpy" not in added


def test_a_session_named_by_its_header_is_kept_over_connections(server: Served) -> None:
    chat = server.chat()
    with httpx2.Client(base_url=server.url, headers=SESSION, trust_env=False) as http:
        assert http.get(chat).is_success
