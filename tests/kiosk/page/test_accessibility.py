"""axe-core with the tags of WCAG 2.2 AA over every state of the page, and targets as large as a finger wants."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed; `make setup` installs it")

from axe_playwright_python.base import AXE_SCRIPT

from tests.kiosk.page.browsing import PHONE, TALL, Visitor, visiting
from tests.kiosk.page.test_telling import CAT_AND_TREE

pytestmark = pytest.mark.slow

TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa", "best-practice"]
LEAST_PX = 56

SMALL = """(least) => [...document.querySelectorAll("button, [role=switch], textarea")].filter((node) => {
  if (node.closest("[inert], .hidden") || node.matches(".key, .box-grip") || !node.checkVisibility()) return false;
  const { width, height } = node.getBoundingClientRect();
  return width < least - 0.5 || height < least - 0.5;
}).map((node) => [node.className, node.textContent, Math.round(node.getBoundingClientRect().width)])"""


def faults(visitor: Visitor) -> list[Any]:
    """What axe finds, as [rule, elements]."""
    visitor.page.evaluate(AXE_SCRIPT)
    options = json.dumps({"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]})
    found = visitor.page.evaluate(f"axe.run(document, {options})")
    return [[v["id"], [(n["html"], n["failureSummary"]) for n in v["nodes"]]] for v in found["violations"]]


def attract(visitor: Visitor) -> None:
    visitor.come("")


def empty(visitor: Visitor) -> None:
    visitor.come()


def where(visitor: Visitor) -> None:
    visitor.come().tap("tile-cat")


def drawn(visitor: Visitor) -> None:
    visitor.come().tell(*CAT_AND_TREE)


def moving(visitor: Visitor) -> None:
    drawn(visitor)
    visitor.tap("moveThings", f"box-{next(iter(visitor.boxes()))}", "box-down")


def typing(visitor: Visitor) -> None:
    visitor.come().tap("type", "key-A")


def noted(visitor: Visitor) -> None:
    visitor.come().tap("type")
    visitor.page.locator("textarea").fill("A cat sits left of a tree. Draw a dragon at the top.")
    visitor.draw()


def compared(visitor: Visitor) -> None:
    drawn(visitor)
    visitor.draw("anotherTry")
    visitor.tap("compare")


def book(visitor: Visitor) -> None:
    drawn(visitor)
    visitor.tap("book")


def asked(visitor: Visitor) -> None:
    visitor.come("attract=off&idle=2&warn=60").tap("tile-cat")
    visitor.page.wait_for_selector(".still-there")


def switched(visitor: Visitor) -> None:
    """All switches on, in German."""
    drawn(visitor)
    visitor.tap("lang-de", "ease", "switch-largeText", "switch-contrast", "switch-lowReach")
    visitor.until("document.documentElement.dataset.lowReach === 'on'")


STATES = (attract, empty, where, drawn, moving, typing, noted, compared, book, asked, switched)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_no_state_has_a_fault(visitor: Visitor, state: Callable[[Visitor], None]):
    state(visitor)
    assert faults(visitor) == []
    visitor.becomes(lambda: visitor.page.evaluate(SMALL, LEAST_PX), [])


@pytest.mark.parametrize("size", [TALL, PHONE], ids=["tall", "phone"])
def test_no_screen_has_a_fault(browser, server, size):
    with visiting(browser, server.url, size=size) as visitor:
        switched(visitor)
        assert faults(visitor) == []
        visitor.becomes(lambda: visitor.page.evaluate(SMALL, LEAST_PX), [])
        visitor.leave()


def test_a_fault_is_found(visitor: Visitor):
    """The check itself can fail."""
    visitor.come().page.evaluate("document.querySelector('.draw .button-text').remove()")
    assert [rule for rule, _ in faults(visitor)] == ["button-name"]


def test_low_reach_keeps_a_tall_screens_upper_part_free(browser, server):
    with visiting(browser, server.url, size=TALL) as visitor:
        switched(visitor)
        visitor.page.keyboard.press("Escape")
        tops = (
            "[...document.querySelectorAll('button')].filter((one) => one.checkVisibility())"
            ".map((one) => one.getBoundingClientRect().top)"
        )
        visitor.until(f"Math.min(...{tops}) > {0.25 * TALL[1]}")
        visitor.leave()
