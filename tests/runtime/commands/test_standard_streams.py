"""Every command with each standard stream closed, full, in ASCII or without a reader: the work is done all the same."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mgcc_runtime.cli import main
from mgcc_runtime.commands.console import command, give
from mgcc_runtime.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED
from tests.stream_states import LOSING, STATES, State, in_ascii, run_with, sound

Run = Callable[..., tuple[int, dict[str, str]]]
TEXT = "Füchse 🦊"


@dataclass(frozen=True)
class Command:
    """What is run, what is asked of standard output, and the code where all goes well."""

    arguments: tuple[str, ...]
    given: bool = True  # on standard output stands what was asked for; else a word about what is kept in a file
    code: int = EXIT_DONE
    kept: tuple[str, ...] = ()  # files that are there afterwards


DRAW = ("generate", "--text", TEXT, "--out", "ü.png")
COMMANDS = {
    "generate": Command(DRAW, given=False, kept=("ü.png",)),
    "generate, with text": Command((*DRAW, "--words", "3"), kept=("ü.png",)),
    "generate, JSON": Command((*DRAW, "--json"), kept=("ü.png",)),
    "chat": Command(("chat", "--out", "turns", "--words", "0"), given=False, kept=("turns/turn-1.png",)),
    "chat, JSON": Command(("chat", "--out", "turns", "--json"), kept=("turns/turn-1.png", "turns/turn-2.png")),
    "info": Command(("info",)),
    "info, JSON": Command(("info", "--json")),
    "verify": Command(("verify",)),
    "verify, JSON": Command(("verify", "--json")),
    "verify, kept": Command(("verify", "--out", "v.json"), given=False, kept=("v.json",)),
    "bench": Command(("bench", "--parts", "latency", "--runs", "1", "--warm-up", "0", "--steps", "1", "--words", "1")),
    "refused": Command(("generate", "--text", " ", "--out", "x.png"), code=EXIT_BAD_INPUT, given=False),
    "unknown option": Command(("info", "--" + TEXT), code=EXIT_BAD_INPUT, given=False),
    "help": Command(("generate", "--help")),
}


@pytest.fixture
def run(bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty folder with these streams; see `run_with`."""
    monkeypatch.chdir(tmp_path)

    def run_it(arguments: tuple[str, ...], **states: State) -> tuple[int, dict[str, str]]:
        needed = [] if "--help" in arguments else ["--bundle", str(bundle_path)]
        monkeypatch.setattr(sys, "stdin", io.StringIO(f"{TEXT}\nIt sits.\n"))
        return run_with(lambda: main([arguments[0], *needed, *arguments[1:]]), **states)

    return run_it


def check_kept(asked: Command) -> None:
    for name in asked.kept:
        if name.endswith(".png"):
            with Image.open(name) as picture:
                picture.load()
        else:
            json.loads(Path(name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", COMMANDS)
def test_standard_output(run: Run, name: str, state: str) -> None:
    asked = COMMANDS[name]
    code, told = run(asked.arguments, stdout=STATES[state], stderr=sound)
    check_kept(asked)
    lost = state in LOSING and asked.code == EXIT_DONE
    assert code == (EXIT_FAILED if lost and asked.given else asked.code)
    said = told["stderr"]
    assert "Traceback" not in said and "Exception ignored" not in said
    if lost and (asked.given or state == "full"):
        assert said.startswith("mgcc: standard output cannot be written to (")
        assert said.count("\n") == 1
        assert ("what was made is kept" in said) == (not asked.given)
    elif asked.code == EXIT_DONE:
        assert said == ""
    if state == "in_ascii" and "JSON" in name:
        assert [json.loads(line) for line in told["stdout"].splitlines()]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", COMMANDS)
def test_standard_error_changes_nothing(run: Run, name: str, state: str) -> None:
    asked = COMMANDS[name]
    code, told = run(asked.arguments, stdout=sound, stderr=STATES[state])
    check_kept(asked)
    assert code == asked.code
    assert told["stdout"] or asked.code != EXIT_DONE


@pytest.mark.parametrize("state", STATES)
def test_both_at_once(run: Run, state: str) -> None:
    asked = COMMANDS["generate"]
    assert run(asked.arguments, stdout=STATES[state], stderr=STATES[state])[0] == EXIT_DONE
    check_kept(asked)
    asked = COMMANDS["info, JSON"]
    code, _ = run(asked.arguments, stdout=STATES[state], stderr=STATES[state])
    assert code == (EXIT_FAILED if state in LOSING else EXIT_DONE)


def test_json_in_ascii_says_the_same(run: Run) -> None:
    arguments = (*DRAW, "--json")
    assert json.loads(run(arguments, stdout=in_ascii)[1]["stdout"])["images"][0]["path"] == "ü.png"
    assert '"ü.png"' in run(arguments, stdout=sound)[1]["stdout"]


def standard_input(state: str) -> Any:
    """Standard input in a state that a shell may leave it in."""
    if state == "closed":
        return None
    if state == "in ASCII":
        return io.TextIOWrapper(io.BytesIO(f"{TEXT}\n".encode()), encoding="ascii", errors="surrogateescape")
    return io.StringIO()


@pytest.mark.parametrize(
    ("state", "code", "said"),
    [
        ("in ASCII", EXIT_DONE, ""),
        ("empty", EXIT_DONE, ""),
        ("closed", EXIT_BAD_INPUT, "mgcc: standard input is closed, expected a turn in each of its lines"),
    ],
)
def test_standard_input(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    state: str, code: int, said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stdin", standard_input(state))
    assert main(["chat", "--bundle", str(bundle_path), "--out", "turns"]) == code
    errors = capsys.readouterr().err
    assert said in errors and errors.count("\n") == bool(said)
    assert (tmp_path / "turns" / "turn-1.png").exists() == (state == "in ASCII")


def shell(line: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """A line of a shell, in which `mgcc` is this project's."""
    mgcc = f'mgcc() {{ "{sys.executable}" -m mgcc_runtime "$@"; }}; '
    environment = {**os.environ, **more}
    return subprocess.run(
        ["bash", "-c", mgcc + line], capture_output=True, text=True, check=False, cwd=folder, env=environment
    )


def test_all_three_closed_in_a_real_process(bundle_path: Path, tmp_path: Path) -> None:
    """Numbers of closed streams go to no file that is opened later: what an engine says would stand in a picture."""
    done = shell(f"mgcc generate --bundle {bundle_path} --text fox --out x.png <&- >&- 2>&-", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (EXIT_DONE, "", "")
    with Image.open(tmp_path / "x.png") as picture:
        picture.load()


def test_pythons_own_last_words_in_a_real_process(bundle_path: Path, tmp_path: Path) -> None:
    """What the interpreter does with its streams at its end: neither a word of its own nor a code of its own (120)."""
    line = f"mgcc info --bundle {bundle_path} > /dev/full; echo $?; mgcc info --bundle {bundle_path} | head -0; "
    done = shell(line + "echo ${PIPESTATUS[0]}", tmp_path, PYTHONIOENCODING="ascii")
    assert done.stdout == f"{EXIT_FAILED}\n{EXIT_DONE}\n"
    assert done.stderr.startswith("mgcc: standard output cannot be written to (No space left on device)")
    assert done.stderr.count("\n") == 1


#: The command line in a process that gets a signal where a finished file would take its place.
_STRUCK = """
import os, signal, sys
from mgcc_runtime import files
from mgcc_runtime.cli import main
number = int(sys.argv[1])
before = signal.getsignal(number)
files.os.replace = lambda *_: signal.raise_signal(number)
code = main(sys.argv[2:])
assert signal.getsignal(number) is before
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGINT, 130, "mgcc: interrupted\n"),
        (signal.SIGTERM, 143, "mgcc: interrupted by SIGTERM\n"),
        (signal.SIGHUP, 129, "mgcc: interrupted by SIGHUP\n"),
    ],
)
def test_stopped_by_a_signal(bundle_path: Path, tmp_path: Path, number: signal.Signals, code: int, said: str) -> None:
    """In the midst of writing a picture: no half of it is left, and the signals' handlers are as they were.

    In a process of its own, since a signal that is not caught would end this one.
    """
    out = tmp_path / "out"
    arguments = ["generate", "--bundle", str(bundle_path), "--text", "A cat.", "--out", str(out / "x.png")]
    done = subprocess.run(
        [sys.executable, "-c", _STRUCK, str(int(number)), *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (code, said)
    assert list(out.iterdir()) == []


def test_stopped_while_it_waits_for_a_turn(bundle_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mgcc_runtime", "chat", "--bundle", str(bundle_path), "--out", str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
    ) as chat:
        assert chat.stdin is not None and chat.stdout is not None
        chat.stdin.write("A cat.\n")
        assert chat.stdout.readline(), "the first turn is answered, and the next one waited for"
        chat.send_signal(signal.SIGTERM)
        assert chat.wait(60) == 143


def test_a_command_within_a_command_and_errors_of_the_system(capsys: pytest.CaptureFixture[str]) -> None:
    @command("inner")
    def inner(arguments: Any = None) -> int:
        give("found")
        raise arguments

    @command("outer")
    def outer(arguments: Any = None) -> int:
        return inner(arguments)

    full_disk = OSError(28, "No space left on device", "a.bin")
    expected = "inner: a.bin cannot be used (No space left on device); see that it can be read or written, and that "
    for error, said in ((full_disk, expected), (MemoryError(), "inner: memory ran out; close other programs")):
        assert outer(error) == EXIT_FAILED  # type: ignore[arg-type]
        captured = capsys.readouterr()
        assert captured.out == "found\n"
        assert captured.err.startswith(said) and captured.err.count("\n") == 1
