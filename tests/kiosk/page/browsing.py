"""Debian's Chromium on the page, as a visitor: taps, keys, and what the page shows."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect

from tests.debian import Program, Unavailable, installed

TALL, WIDE, PHONE = (1080, 1920), (1280, 800), (390, 844)
PATIENCE_MS = 30_000  # two cores, shared with another test
expect.set_options(timeout=PATIENCE_MS)

_KEPT = Path(sys.prefix) / "debian" / "chromium"
#: Nothing but the server can be reached, the sandbox needs no rights, and no part of the browser calls home.
ARGUMENTS = (
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--no-sandbox", "--disable-gpu", "--disable-component-update", "--disable-background-networking",
)  # fmt: skip
#: Counts the pictures that a page holds, and how often it began to draw.
COUNTING = """
window.begun = 0;
new MutationObserver(() => {
  const waits = document.querySelector(".wait") !== null;
  if (waits && !window.waits) window.begun += 1;
  window.waits = waits;
}).observe(document, { subtree: true, childList: true });
window.held = new Set();
const [make, drop] = [URL.createObjectURL, URL.revokeObjectURL];
URL.createObjectURL = (blob) => { const address = make.call(URL, blob); window.held.add(address); return address; };
URL.revokeObjectURL = (address) => { window.held.delete(address); drop.call(URL, address); };
"""


def chromium() -> Program:
    """The system's own, or Debian's fetched without root; where neither can be, a skip that says what to install."""
    try:
        return installed(_KEPT, "chromium", ["chromium", "fonts-dejavu-core"], "usr/lib/chromium/chromium")
    except Unavailable as why:
        pytest.skip(f"no Chromium: {why}; `apt-get install chromium` lets this run")


def launched(playwright: Playwright) -> Browser:
    program = chromium()
    environment: dict[str, str | float | bool] = {**os.environ, **program.environment}
    return playwright.chromium.launch(executable_path=program.path, args=list(ARGUMENTS), env=environment)


class Visitor:
    """Somebody in front of the page."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.url = page, url
        self.asked: list[str] = []  # hosts of all requests
        self.errors: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: self.asked.append(urlsplit(request.url).netloc or request.url[:5]))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))

    def come(self, query: str = "attract=off") -> Visitor:
        self.page.goto(f"{self.url}/?{query}")
        self.page.wait_for_selector(".attract:not([hidden]), .tile")
        return self

    def tap(self, *keys: str) -> None:
        """Tap what has these keys, one after the other."""
        for key in keys:
            self.page.locator(f'[data-key="{key}"]').first.tap()

    def tell(self, *keys: str) -> None:
        """Tap a sentence together and have it drawn."""
        self.tap(*keys)
        self.draw()

    def draw(self, key: str = "draw") -> None:
        """Tap what draws, and wait until that is done."""
        begun = self.page.evaluate("window.begun")
        self.tap(key)
        self.until(f"window.begun > {begun}")
        self.drawn()

    def drawn(self) -> None:
        """Wait until whatever is being drawn is."""
        self.page.wait_for_selector(".wait", state="detached")
        self.page.wait_for_selector("img.drawn[src^='blob:']")

    def api(self, path: str) -> Any:
        """What the server tells this visitor's session."""
        return self.page.evaluate("async (path) => (await fetch(path)).json()", path)

    def chat(self) -> Any:
        return self.api("/api/session")["chats"][-1]

    def boxes(self) -> dict[str, list[float]]:
        """Where each thing is on the screen, in parts of the picture: left, top, width, height by id."""
        told = """(boxes) => Object.fromEntries(boxes.map((box) => [box.dataset.id,
          ["left", "top", "width", "height"].map((side) => parseFloat(box.style[side]) / 100)]))"""
        found: dict[str, list[float]] = self.page.eval_on_selector_all(".box", told)
        return found

    def leave(self) -> None:
        """So that the shared server forgets them, once the page asks nothing more of what is forgotten."""
        self.page.goto("about:blank")
        self.page.context.request.delete(f"{self.url}/api/session")

    def until(self, expression: str) -> None:
        """Wait until this is true. Playwright's own way needs `eval`, which the page's policy forbids."""
        patience = time.monotonic() + PATIENCE_MS / 1000
        while not self.page.evaluate(expression):
            assert time.monotonic() < patience, (
                expression,
                self.page.evaluate("document.documentElement.outerHTML")[:200],
            )
            time.sleep(0.05)

    def becomes(self, probe: Callable[[], Any], wanted: object) -> None:
        """Wait until `probe` gives what is wanted: the page answers a key or a touch some moments later."""
        patience = time.monotonic() + PATIENCE_MS / 1000
        while probe() != wanted and time.monotonic() < patience:
            time.sleep(0.05)
        assert probe() == wanted

    def says(self, selector: str, text: str) -> None:
        """Wait until the first of these elements holds the text."""
        expect(self.page.locator(selector).first).to_contain_text(text, use_inner_text=True)

    def reads(self, text: str) -> None:
        """Wait until the sentence that is being told is this one."""
        expect(self.page.locator(".sentence-text").first).to_have_text(text, use_inner_text=True)

    def gone(self, selector: str) -> None:
        """Wait until no element is left of these."""
        expect(self.page.locator(selector)).to_have_count(0)

    def focused(self, key: str) -> None:
        """Wait until this has the focus."""
        self.becomes(lambda: self.page.evaluate("document.activeElement?.dataset?.key"), key)

    def held_pictures(self) -> int:
        found: int = self.page.evaluate("window.held.size")
        return found


@contextmanager
def visiting(browser: Browser, url: str, **options: Any) -> Iterator[Visitor]:
    """A visitor with a session of their own. Whatever they did, nothing was asked of another machine or went wrong."""
    width, height = options.pop("size", WIDE)
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": height}, has_touch=True, reduced_motion="reduce", **options
    )
    context.add_init_script(COUNTING)
    try:
        visitor = Visitor(context.new_page(), url)
        yield visitor
        here = urlsplit(url).netloc
        assert set(visitor.asked) <= {here, "blob:", "data:"}
        assert visitor.errors == [], visitor.errors
    finally:
        context.close()
