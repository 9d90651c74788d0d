"""The runtime on aarch64, installed from a kit: `make test-arm64`. Other runs do not collect these tests."""

from __future__ import annotations

import hashlib
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from mgcc_runtime.errors import KitError
from mgcc_runtime.kit.own_wheel import own_wheel
from mgcc_runtime.kit.target import Processor, Target
from mgcc_runtime.kit.wheels import fetch
from tests.debian import Unavailable

from .bundles import TINY, build_bundle
from .emulator import PINNED, Emulator, prepare

ROOT = Path(__file__).parents[2]
CACHE = Path(sys.prefix) / "arm64"
TABLE = "arm64"  # property of a test: a row of the table at the end

collect_ignore_glob = [] if os.environ.get("MGCC_ARM64") else ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "arm64: on aarch64 instructions, under emulation: `make test-arm64`")


@dataclass(frozen=True)
class Device:
    """An emulated aarch64 machine on which a kit was installed."""

    emulator: Emulator
    kit: Path

    def mgcc(self, *words: str | Path, cwd: Path, text: str = "") -> str:
        """Output of the command `mgcc` there."""
        programs = self.kit / "venv" / "bin"
        return self.emulator.run(programs / "python", programs / "mgcc", *words, cwd=cwd, text=text)


@pytest.fixture(scope="session")
def emulator() -> Emulator:
    try:
        return prepare(CACHE)
    except Unavailable as missing:
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def device(emulator: Emulator) -> Device:
    """The kit of `tiny`, installed on aarch64 by its README's commands, which takes two minutes of emulation.

    It is kept while it has the same packages; of mgcc-edge, which changes, the new wheel is then installed alone.
    """
    bundle = build_bundle(TINY, "fp32")
    with FileLock(CACHE / "device.lock"):
        made = _make_kit(emulator, bundle)
        (own,) = (made / "wheels").glob("mgcc_edge-*.whl")
        kit = CACHE / f"kit-{_digest(path for path in (made / 'wheels').iterdir() if path != own)}"
        ready = kit / "ready"
        installed = ready.read_text(encoding="utf-8") if ready.exists() else ""
        if not installed:
            for older in CACHE.glob("kit-*"):
                shutil.rmtree(older)
            made.rename(kit)
            for command in commands_of(kit)[1:3]:
                emulated(emulator, command, kit)
        elif installed != _digest([own]):
            shutil.copytree(made, kit, dirs_exist_ok=True)
            pip = next((kit / "wheels").glob("pip-*.whl")) / "pip"
            options = ("--no-index", "--no-deps", "--force-reinstall", kit / "wheels" / own.name)
            emulator.run(kit / "venv" / "bin" / "python", pip, "install", *options, cwd=kit)
        ready.write_text(_digest([kit / "wheels" / own.name]), encoding="utf-8")
    return Device(emulator, kit)


def emulated(emulator: Emulator, command: str, kit: Path) -> str:
    """Run a line of a kit's README there; a script that pip wrote is given to its Python, as a kernel would."""
    program, *words = shlex.split(command)
    if program.startswith("python"):
        return emulator.run(emulator.interpreter, *words, cwd=kit)
    path = kit / program
    script = [] if path.name == "python" else [path]
    return emulator.run(path.parent / "python", *script, *words, cwd=kit)


def commands_of(kit: Path) -> list[str]:
    """The README's commands, a line each."""
    (block,) = re.findall(r"^```bash\n(.*?)^```", (kit / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    return str(block).splitlines()


def _make_kit(emulator: Emulator, bundle: Path) -> Path:
    wheels = _wheels(emulator)
    out = CACHE / "made"
    target = ("--python", emulator.python, "--platform", "aarch64")
    command = [sys.executable, "-m", "mgcc_runtime", "kit", "--bundle", bundle, *target, "--out", out]
    offline = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


def _wheels(emulator: Emulator) -> Path:
    """What the runtime needs there, fetched once: in the versions of constraints.txt but for the pinned."""
    pinned = {line.split("==")[0] for line in PINNED}
    lines: Sequence[str] = runpy.run_path(str(ROOT / "tools" / "fetch_wheelhouses.py"))["constraints"]()
    lines = [*PINNED, *(line for line in lines if line.split("==")[0] not in pinned)]
    folder = CACHE / f"wheels-{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()[:12]}"
    if not folder.exists():
        new = CACHE / "wheels-new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        own = own_wheel(None, new)
        try:
            wanted = (f"mgcc-edge[cpu] @ {own.as_uri()}", "pip")
            fetch(wanted, Target(emulator.python, Processor.AARCH64), new, lines)
        except KitError as error:
            pytest.skip(str(error))
        own.unlink()
        new.rename(folder)
    return folder


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(path.name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was played there, bundle by bundle."""
    reports = [report for outcome in ("passed", "failed") for report in terminalreporter.stats.get(outcome, [])]
    rows = [json.loads(value) for report in reports for name, value in report.user_properties if name == TABLE]
    if rows:
        terminalreporter.section("aarch64 beside x86-64", sep="-")
        terminalreporter.write_line(f"{'bundle':20} {'command':10} what came")
    for bundle, command, told in sorted(rows):
        terminalreporter.write_line(f"{bundle:20} {command:10} {told}")
