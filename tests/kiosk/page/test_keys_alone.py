"""A whole story without a finger: Tab, arrows, Enter and Space."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.kiosk.page.browsing import Visitor

pytestmark = pytest.mark.slow

MOST_TABS = 60


def go_to(visitor: Visitor, key: str) -> None:
    """Tab until this has the focus; every stop on the way must show that it has it."""
    focused = "document.activeElement?.dataset?.key ?? ''"
    for _ in range(MOST_TABS):
        if visitor.page.evaluate(focused) == key:
            return
        visitor.page.keyboard.press("Tab")
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        stop = visitor.page.evaluate("document.activeElement !== document.body")
        assert not stop or visitor.page.evaluate(outline) != "none", visitor.page.evaluate(focused)
    raise AssertionError(f"{key} is not reached by Tab")


def press(visitor: Visitor, *keys: str) -> None:
    for key in keys:
        visitor.page.keyboard.press(key)


def drawn_top(visitor: Visitor, box: str) -> float:
    """Of a box in the server's picture, in parts of it."""
    boxes = visitor.chat()["turns"][0]["picture"]["boxes"]
    return next(one["xyxy"][1] / 32 for one in boxes if one["id"] == box)


def test_a_story_by_keys(visitor: Visitor):
    visitor.come("")
    go_to(visitor, "start")
    press(visitor, "Enter")
    visitor.focused("tab-things")
    go_to(visitor, "tile-cat")
    press(visitor, "ArrowRight")
    visitor.focused("tile-dog")
    press(visitor, "ArrowDown", "ArrowUp", "Home", "Enter")  # the cat; the focus goes on to where it is
    go_to(visitor, "tile-left of")
    press(visitor, "Space")
    go_to(visitor, "tile-dog")  # the cat itself is not to be had
    while visitor.page.evaluate("document.activeElement.dataset.key") != "tile-tree":
        press(visitor, "ArrowRight")
    press(visitor, "Enter")
    visitor.reads("A cat sits left of a tree.")
    go_to(visitor, "draw")
    press(visitor, "Enter")
    visitor.page.wait_for_selector(".thumb img")
    visitor.drawn()
    visitor.says("#announcer", "Your picture is ready.")

    box = next(iter(visitor.boxes()))
    go_to(visitor, f"box-{box}")
    before = visitor.boxes()[box]
    press(visitor, "ArrowDown", "ArrowDown")
    visitor.becomes(lambda: visitor.boxes()[box][1] > before[1], True)
    go_to(visitor, "redraw")
    press(visitor, "Enter")
    visitor.becomes(lambda: drawn_top(visitor, box) > before[1], True)
    visitor.drawn()

    go_to(visitor, "book")
    press(visitor, "Enter")
    expect(visitor.page.locator(".book")).to_be_visible()
    press(visitor, "Escape")
    visitor.gone(".book")  # a dialog tells of its closing a moment after the key
    visitor.focused("book")
