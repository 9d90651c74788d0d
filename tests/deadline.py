"""`--slow-until-min N`: N minutes into a run, its slow tests that have not begun are skipped, each with its reason.

For a run that is ended from outside at a fixed time (`.ci/run`): on a slow or busy machine it ends with a verdict on
what ran, and names what did not, where it would be ended without a word.
"""

from __future__ import annotations

import time

import pytest


class Deadline:
    """Attached by each process of pytest; they begin within seconds of each other."""

    def __init__(self, config: pytest.Config) -> None:
        self._minutes: float | None = config.getoption("--slow-until-min")
        self._began_s = time.monotonic()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if self._minutes is None or item.get_closest_marker("slow") is None:
            return
        if time.monotonic() - self._began_s > 60 * self._minutes:
            pytest.skip(f"slow, and the {self._minutes:g} minutes for slow tests are over; make test-all runs it")
