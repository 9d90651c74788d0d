"""A kit for a kiosk: what it installs on a device, as far as a machine without the device can try it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mgcc_kiosk.page_watch import ALIVE, DEAD, is_dead, main
from mgcc_kiosk.settings import USUAL_PORT
from mgcc_kiosk.visitors.naming import COOKIE, SESSION_HEADER
from mgcc_runtime.kit.kiosk_files import write_kiosk
from mgcc_runtime.kit.readme import KitText
from mgcc_runtime.kit.target import Processor, Target, Use

from .conftest import OWN_PYTHON, ROOT, wheelhouse
from .test_kit import mgcc_kit, serve

SHELL = shutil.which("dash") or "/bin/sh"


def text_of(*, on_the_device: bool) -> KitText:
    """Of a kit whose engines are built on the device, or of one for the CPU."""
    extra, target = ("jetson", "jetson") if on_the_device else ("cpu", "cpu")
    return KitText(
        Target("3.10", Processor.AARCH64), Use.KIOSK, "story", target, (extra, "serve"), "pip-26-none-any.whl",
        tensorrt=on_the_device, gpu=on_the_device, builds_engines=on_the_device,
    )  # fmt: skip


@pytest.fixture(params=[False, True], ids=["cpu", "jetson"])
def written(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    write_kiosk(tmp_path / "kiosk", text_of(on_the_device=request.param))
    return tmp_path / "kiosk"


def places_left(written: str) -> set[str]:
    """What no kit fills in; systemd's own places have one letter, and %BROWSER% is the installer's."""
    return set(re.findall(r"%([A-Z_]{2,})%", written)) - {"BROWSER"}


def test_every_place_is_filled_in(written: Path) -> None:
    assert {path.name: places_left(path.read_text(encoding="utf-8")) for path in written.iterdir()} == {
        path.name: set() for path in written.iterdir()
    }
    assert places_left("%PYTHON% %i %BROWSER%") == {"PYTHON"}


def test_port_and_session_are_the_server_s(written: Path) -> None:
    """Written out in files that no Python reads: units, policies, and the recipes for several servers."""
    scale = [*(ROOT / "examples" / "scale").iterdir()]
    for path in [*written.iterdir(), *scale]:
        ports = set(re.findall(r"127\.0\.0\.1:(\d+)", path.read_text(encoding="utf-8")))
        assert ports <= {str(USUAL_PORT + number) for number in range(3 if path in scale else 1)}, path.name
    for path in scale:
        text = path.read_text(encoding="utf-8")
        assert COOKIE in text and SESSION_HEADER.replace("-", "_") in text.replace("-", "_"), path.name


def test_systemd_accepts_the_units(written: Path, tmp_path: Path) -> None:
    """systemd's own check, with the programs that the units start put where they will be."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here, which checks units; on Debian or Ubuntu with systemd this runs")
    for path in written.glob("mgcc-*"):
        unit = path.read_text(encoding="utf-8").replace("/opt/mgcc-kiosk/venv/bin/", f"{tmp_path}/")
        unit = unit.replace("/usr/bin/cage", f"{tmp_path}/cage").replace("%BROWSER%", f"{tmp_path}/chromium")
        path.write_text(unit, encoding="utf-8")
    for name in ("mgcc", "python", "cage", "chromium"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    units = sorted(map(str, written.glob("mgcc-*")))

    def said(*of: str) -> str:
        command = [analyze, "verify", "--man=no", "--recursive-errors=no", *of]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    assert said(*units) == ""
    served = written / "mgcc-kiosk.service"
    served.write_text(served.read_text().replace("ProtectHome=", "ProtectHouse="))
    assert "ProtectHouse" in said(*units)


@pytest.mark.slow
def test_the_installer_fills_a_root_of_its_own(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DESTDIR: the real kit, its real installer; what would need systemd and root is left out."""
    with monkeypatch.context() as patch:
        serve(patch, wheelhouse(OWN_PYTHON))
        made = mgcc_kit(tiny_bundle, tmp_path / "kit", "--for", "kiosk")
    assert made.returncode == 0, made.stderr
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / f"python{OWN_PYTHON}").symlink_to(sys.executable)
    environment = {
        **os.environ, "DESTDIR": str(tmp_path / "root"), "BROWSER": "/usr/bin/chromium", "PIP_NO_COMPILE": "1",
        "PATH": f"{tmp_path / 'programs'}:{os.environ['PATH']}",
    }  # fmt: skip
    command = [SHELL, "kit/kiosk/install.sh"]
    for _ in range(2):  # an upgrade is the same command
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    home, etc = tmp_path / "root" / "opt" / "mgcc-kiosk", tmp_path / "root" / "etc"
    assert sorted(path.name for path in home.iterdir()) == ["bundle", "venv"]
    assert (home / "venv" / "bin" / "mgcc").read_text().startswith("#!/opt/mgcc-kiosk/venv/bin/python")
    served = [home / "venv" / "bin" / "python", "-m", "mgcc_runtime", "serve", "--help"]
    assert "--host" in subprocess.run(served, capture_output=True, text=True, check=True).stdout
    assert (
        "ExecStart=/usr/bin/cage -s -- /usr/bin/chromium --kiosk"
        in (etc / "systemd/system/mgcc-browser.service").read_text()
    )
    assert [path.name for path in (etc / "systemd/system/mgcc-kiosk.service.d").iterdir()] == ["cpu.conf"]
    for browser in ("chromium", "chromium-browser"):
        assert (etc / browser / "policies/managed/mgcc-kiosk.json").is_file()

    (tmp_path / "kit" / "bundle" / "manifest.json").write_text("{}")
    spoilt = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert spoilt.returncode and "manifest.json: FAILED" in spoilt.stdout + spoilt.stderr
    assert (home / "bundle").is_dir(), "a damaged kit leaves what is installed"


def test_a_kit_whose_engines_are_built_on_the_device(written: Path) -> None:
    installer = (written / "install.sh").read_text()
    subprocess.run([SHELL, "-n", written / "install.sh"], check=True)
    built = "device_build" in installer
    assert built == (not (written / "Containerfile").exists())  # TensorRT is not in a container
    assert ("--system-site-packages" in installer) == built
    played = "engines" if built else "bundle"
    assert f"--bundle /opt/mgcc-kiosk/{played}" in (written / "mgcc-kiosk.service").read_text()


@pytest.mark.parametrize(
    ("uptime_s", "seen_s", "dead"), [(9, None, False), (90, None, True), (9999, 3, False), (9999, 90, True)]
)
def test_a_page_is_dead_after_a_minute_without_a_heartbeat(
    uptime_s: float, seen_s: float | None, *, dead: bool
) -> None:
    assert is_dead({"uptime_s": uptime_s, "page_heartbeat_s": seen_s}) == dead


def test_a_server_that_is_away_is_not_the_page_s_fault() -> None:
    assert main(["http://127.0.0.1:9"]) == ALIVE != DEAD


def test_without_a_browser_nothing_is_installed(written: Path, tmp_path: Path) -> None:
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs" / "dirname").symlink_to(shutil.which("dirname") or "/usr/bin/dirname")
    environment = {"PATH": str(tmp_path / "programs"), "DESTDIR": str(tmp_path / "root")}
    command = [SHELL, written / "install.sh"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, (tmp_path / "root").exists()) == (1, False)
    assert "install chromium and cage" in done.stderr
