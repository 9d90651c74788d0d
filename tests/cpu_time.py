"""How much CPU time each test takes, its child processes included: unlike wall time it holds on a busy machine.

`--cpu-times FILE` writes a line for each test (seconds, name), the dearest first. `--cpu-budget-min N` fails a run
whose tests without the marker `slow` took more than N CPU minutes in all. That is how `make test` holds its own;
`make test-all` says the figure.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

_PROPERTY = "cpu_s"


def _now_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class CpuTimes:
    """Attached by each process of pytest; only the one that prints collects, from the reports it is sent."""

    def __init__(self, config: pytest.Config) -> None:
        self._file: str | None = config.getoption("--cpu-times")
        self._budget_min: float | None = config.getoption("--cpu-budget-min")
        self._spent_s: dict[str, float] = {}
        self._slow: set[str] = set()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._started_s = _now_s()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Iterator[None]:
        report = yield
        now = _now_s()
        report.user_properties.append((_PROPERTY, now - self._started_s))
        self._started_s = now
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        spent_s = sum(float(str(value)) for name, value in report.user_properties if name == _PROPERTY)
        self._spent_s[report.nodeid] = self._spent_s.get(report.nodeid, 0.0) + spent_s
        if "slow" in report.keywords:
            self._slow.add(report.nodeid)

    @property
    def _usual_min(self) -> float:
        """Of the tests that are not slow."""
        return sum(spent_s for name, spent_s in self._spent_s.items() if name not in self._slow) / 60

    @property
    def _too_much(self) -> bool:
        return self._budget_min is not None and self._usual_min > self._budget_min

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        if self._too_much and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._spent_s:
            return
        total_min = sum(self._spent_s.values()) / 60
        terminalreporter.write_line(f"CPU time: {total_min:.1f} min, without slow tests {self._usual_min:.1f} min")
        if self._too_much:
            terminalreporter.write_line(
                f"that is more than the {self._budget_min:g} min allowed: mark what is slow and seldom breaks with "
                "`slow`, or make it cheaper (--cpu-times FILE lists the tests by their cost)",
                red=True,
            )
        if self._file:
            rows = sorted(self._spent_s.items(), key=lambda row: -row[1])
            Path(self._file).write_text("".join(f"{spent:9.2f} {name}\n" for name, spent in rows), encoding="utf-8")
