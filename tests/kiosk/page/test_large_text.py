"""Large German text, the longest that there is: no word leaves its button, and parts of the page do not overlap."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from tests.kiosk.page.browsing import PHONE, TALL, WIDE, visiting
from tests.kiosk.page.test_accessibility import switched
from tests.kiosk.serving import Served

pytestmark = pytest.mark.slow

#: Words of buttons that stand out of them, and those of whole letters that were broken where nothing says so.
OUTSIDE = """() => [...document.querySelectorAll(".tool, .tile, .tab, .head .button")]
  .filter((one) => one.checkVisibility()).flatMap((one) => {
    const texts = document.createTreeWalker(one, NodeFilter.SHOW_TEXT);
    const edge = one.getBoundingClientRect();
    const found = [];
    while (texts.nextNode()) {
      const node = texts.currentNode;
      if (node.parentElement.closest(".hidden")) continue;
      for (const { 0: word, index: from } of node.data.matchAll(/[^\\s\\u00ad]+/g)) {
        const range = new Range();
        range.setStart(node, from);
        range.setEnd(node, from + word.length);
        const rects = [...range.getClientRects()];
        const out = rects.some(({ left, right }) => left < edge.left || right > edge.right);
        const lines = new Set(rects.map(({ top }) => Math.round(top)));
        const most = node.data[from - 1] === "\\u00ad" ? 2 : 1; // the hyphen at the end of a line is in what follows it
        if (out || lines.size > most) found.push([word, out, lines.size]);
      }
    }
    return found;
  })"""
#: How many tools reach into the story's strip.
OVERLAP = """() => {
  const place = (one) => one.getBoundingClientRect();
  const strip = place(document.querySelector(".strip"));
  return [...document.querySelectorAll(".tool")].map(place).filter((tool) =>
    tool.bottom > strip.top && tool.top < strip.bottom && tool.right > strip.left && tool.left < strip.right).length;
}"""


@pytest.mark.parametrize("size", [WIDE, TALL, PHONE], ids=["wide", "tall", "phone"])
def test_words_stay_in_their_buttons(browser: Browser, server: Served, size: tuple[int, int]):
    with visiting(browser, server.url, size=size) as visitor:
        switched(visitor)
        visitor.page.keyboard.press("Escape")
        visitor.becomes(lambda: visitor.page.evaluate(OUTSIDE), [])
        visitor.becomes(lambda: visitor.page.evaluate(OVERLAP), 0)
        visitor.tap("tile-cat")
        visitor.becomes(lambda: visitor.page.evaluate(OUTSIDE), [])
        visitor.leave()


def test_a_word_that_is_too_long_is_found(browser: Browser, server: Served):
    with visiting(browser, server.url, size=PHONE) as visitor:
        switched(visitor)
        visitor.page.keyboard.press("Escape")
        visitor.page.evaluate("document.querySelector('.tool .button-text').textContent = 'Donaudampfschifffahrt'")
        assert [word for word, *_ in visitor.page.evaluate(OUTSIDE)] == ["Donaudampfschifffahrt"]
        visitor.leave()
