"""One check for every option: the API, the command line and `chat` take the same and refuse it in the same sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mgcc_runtime import Draw, Grounder, MgccError, OptionError, Pipeline, TextOptions
from mgcc_runtime.cli import _parser, main
from mgcc_runtime.conversation.shelf import Shelf
from mgcc_runtime.device.cpu_features import available_cores
from mgcc_runtime.engines import EngineOptions
from mgcc_runtime.measure.bench import Asked, Plan, bench
from mgcc_runtime.options import PICTURES
from mgcc_runtime.request import Preview

WHOLE = "a whole number"
NUMBER = "a number"


@dataclass(frozen=True)
class Case:
    """An option as its documentation has it."""

    kind: str
    least: float
    most: float
    commands: tuple[str, ...]  # that have it
    through_api: str  # where a program gives it
    least_is_taken: str = "yes"

    def takes(self, value: object) -> bool:
        kinds = (int, np.integer) if self.kind == WHOLE else (int, float, np.integer, np.floating, Fraction)
        if not isinstance(value, kinds) or isinstance(value, bool | np.timedelta64):
            return False
        above = value >= self.least if self.least_is_taken == "yes" else value > self.least
        return bool(above and value <= self.most and math.isfinite(value))


DRAWING, ALL = ("generate", "chat"), ("generate", "chat", "verify", "bench")
CASES = {
    "seed": Case(WHOLE, 0, 2**63 - 1, DRAWING, "request"),
    "steps": Case(WHOLE, 1, 1000, (*DRAWING, "bench"), "request"),
    "guidance": Case(NUMBER, 0, 100, DRAWING, "request"),
    "words": Case(WHOLE, 0, 100_000, (*DRAWING, "bench"), "request"),
    "preview_every": Case(WHOLE, 0, 1000, (), "request"),
    "temperature": Case(NUMBER, 0, 100, DRAWING, "text"),
    "top_p": Case(NUMBER, 0, 1, DRAWING, "text", least_is_taken="no"),
    "repetition_penalty": Case(NUMBER, 0.01, 100, (), "text"),
    "n": Case(WHOLE, 1, 64, (), "pictures"),
    "chat_bytes": Case(WHOLE, 0, 10**15, (), "shelf"),
    "threads": Case(WHOLE, 0, max(8, 4 * available_cores()), ALL, "engine"),
    "runs": Case(WHOLE, 1, 1_000_000, ("bench",), "plan"),
    "warm_up": Case(WHOLE, 0, 1_000_000, ("bench",), "plan"),
}
NUMBERS: list[Any] = [
    0, 1, 2, 4, 8, 100, 101, 1000, 1001, -1, -5, 100_000, 100_001, 10**6, 10**6 + 1, 2**63 - 1, 2**63, 10**400,
    -(10**30), 0.0, -0.0, 0.005, 0.01, 0.5, 1.0, 1.5, 100.0, 100.5, 1e-320, 1e308, math.nan, math.inf, -math.inf,
    np.int8(4), np.uint8(1), np.int64(-1), np.uint64(2**64 - 1), np.float16(0.5), np.float32(1.0), np.float64(math.nan),
    np.longdouble(0.5),
]  # fmt: skip
#: What no command line can be given.
OTHERS: list[Any] = [
    True, False, np.True_, np.timedelta64(3, "s"), np.array(3), np.array([3]), Fraction(1, 2), Decimal(1), 1j, [3],
    (3,), {}, b"3", object(), 10**5000,
]  # fmt: skip
TEXTS = ["", "abc", "3 4", "0x3", "1e", "x" * 500, "1\n2"]


def call(pipe: Pipeline, name: str, value: Any) -> Any:
    """What the API makes of the option; OptionError if it refuses."""
    makers: dict[str, Callable[..., Any]] = {
        "request": pipe.request, "text": TextOptions, "engine": EngineOptions, "plan": Plan,
        "shelf": Shelf, "pictures": _several,
    }  # fmt: skip
    # a bundle takes fewer numbers of steps than the table
    make = _request_of_any_steps if name == "steps" else makers[CASES[name].through_api]
    return getattr(make(**{name: value}), name)


def _several(n: object) -> SimpleNamespace:
    """As `generate_several` checks it before anything else."""
    return SimpleNamespace(n=PICTURES.check(n))


def _request_of_any_steps(steps: object) -> Any:
    from mgcc_runtime.request import Request

    return Request(steps=steps, guidance=2.0, grounder=Grounder.LAYOUT_HEAD)  # type: ignore[arg-type]


def typed(command: str, name: str, text: str) -> Any:
    """What a command line makes of it."""
    needed = [] if command in ("verify", "bench") else ["--out", "x.png"]
    flag = f"--{name.replace('_', '-')}"
    return getattr(_parser().parse_args([command, "--bundle", "b", *needed, f"{flag}={text}"]), name)


def outcome(ask: Callable[[], Any]) -> tuple[str, Any]:
    """Its value and type, or its sentence."""
    try:
        found = ask()
    except OptionError as error:
        return "refused", str(error)
    return type(found).__name__, found


@pytest.mark.parametrize("name", CASES)
def test_one_check_for_all(pipe: Pipeline, name: str) -> None:
    case = CASES[name]
    for value in [*NUMBERS, *OTHERS, *TEXTS]:
        found = outcome(partial(call, pipe, name, value))
        if case.takes(value):
            plain = int if case.kind == WHOLE else float
            assert found == (plain.__name__, plain(value)), value
        else:
            assert found[0] == "refused", value
            assert found[1].startswith(f"{name} is ")
            assert f"expected {case.kind} " in found[1]
            assert len(found[1]) < 250 and "\n" not in found[1]
        if any(value is text for text in [*NUMBERS, *TEXTS]):
            for command in case.commands:
                assert outcome(partial(typed, command, name, str(value))) == found, (command, value)


WORDS = {
    "draw": ([*Draw, "always", "auto"], lambda pipe, value: pipe.chat().stream("A cat.", draw=value)),
    "overflow": (["refuse", "drop-oldest"], lambda pipe, value: pipe.chat(value)),
    "check": (["hashes", "sizes"], lambda pipe, value: Pipeline.load(pipe.bundle.root, threads=1, check=value).close()),
    "decode_graphs": (["measured"], lambda _, value: EngineOptions(decode_graphs=value)),
    "preview": ([*Preview, "exact", "linear"], lambda pipe, value: pipe.request(preview=value)),
    "boxes": (["auto", "none"], lambda pipe, value: pipe.request(boxes=value)),
}


@pytest.mark.parametrize("name", WORDS)
def test_words(pipe: Pipeline, name: str) -> None:
    taken, give = WORDS[name]
    for value in taken:
        give(pipe, value)
    for value in ("", "AUTO", "ask", 3, True, b"auto", math.nan):
        with pytest.raises(MgccError, match="expected"):
            give(pipe, value)


def test_the_command_line_says_the_same_sentence(
    bundle_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `generate` and by `chat`, before any turn; exit code 2."""
    for option in ("--seed=-1", "--threads=1000000", "--guidance=nan", "--steps=9999", "--words=x"):
        said = set()
        for command in (["generate", "--text", "x", "--out", "x.png"], ["chat", "--out", "turns"]):
            monkeypatch.chdir(tmp_path)
            assert main([*command, "--bundle", str(bundle_path), option]) == 2
            said.add(capsys.readouterr().err)
        assert len(said) == 1 and said.pop().count("\n") == 1
    assert main(["chat", "--bundle", str(bundle_path), "--out", "turns", "--draw", "x"]) == 2
    assert capsys.readouterr().err == "mgcc: draw is 'x', expected always or auto; choose one\n"


def test_numpys_numbers_are_those_of_python(pipe: Pipeline) -> None:
    plain = pipe.generate(["A cat."], seed=3, steps=2, guidance=1.5, words=2)
    boxes = [{"label": "cat", "xyxy": np.array([1, 2, 20, 30], np.float32)}]
    found = pipe.generate(["A cat."], seed=np.int64(3), steps=np.uint8(2), guidance=np.float32(1.5), words=np.int16(2))
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(plain.image))
    assert type(found.seed) is int
    assert pipe.request(boxes=boxes).boxes == pipe.request(boxes=[{"label": "cat", "xyxy": [1, 2, 20, 30]}]).boxes


def test_a_refused_benchmark_starts_no_process(bundle_path: Path) -> None:
    for name, start in {
        "steps": lambda: bench(bundle_path, asked=Asked(steps=9999)),
        "words": lambda: bench(bundle_path, asked=Asked(words=-1)),
        "threads": lambda: bench(bundle_path, threads=10**6), "runs": lambda: bench(bundle_path, Plan(runs=0)),
        "steps ": lambda: bench(bundle_path, asked=Asked(steps=True)),
    }.items():  # fmt: skip
        with pytest.raises(OptionError, match=f"{name.strip()} is "):
            start()


@pytest.mark.parametrize("temperature", [1e-320, 1e-3, 100])
def test_extreme_temperatures_write_text(pipe: Pipeline, temperature: float) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        pipe.generate(["A cat."], steps=1, words=3, text=TextOptions(temperature, 1e-9, 0.01))


def test_the_documentation_has_the_same_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "embedding.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in page.partition("## Options")[2].splitlines() if "`" in line]
    table = {row[0].strip("`"): row[1:] for row in rows if len(row) == 3}
    assert set(table) == {name for name in CASES if CASES[name].through_api != "plan"}
    for name, (least, most) in table.items():
        case = CASES[name]
        assert least == (f"{case.least:g}" if case.least_is_taken == "yes" else f"above {case.least:g}")
        if name not in ("seed", "threads"):
            assert float(most.split(", ")[0].replace(",", "")) == case.most
