"""One browser for each file's tests of the page, and a new visitor for each of them.

Not one for all: while Playwright runs, its event loop does too, and other tests of the process cannot run their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("playwright", reason="playwright is not installed; `make setup` installs it")

from playwright.sync_api import Browser, sync_playwright

from tests.kiosk.page.browsing import Visitor, launched, visiting
from tests.kiosk.serving import Served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = launched(playwright)
        yield found
        found.close()


@pytest.fixture
def visitor(browser: Browser, server: Served) -> Iterator[Visitor]:
    """In front of a screen of 1280x800."""
    with visiting(browser, server.url) as found:
        yield found
        found.leave()
