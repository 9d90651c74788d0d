"""A story, told by touch: a sentence out of pictures, boxes before the picture, and what can be done with it then."""

from __future__ import annotations

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.kiosk.page.browsing import PHONE, TALL, WIDE, Visitor, visiting

#: The page's parts that are not wholly on the screen.
OUTSIDE = """() => [...document.querySelectorAll(".head, .work > *, .frame, .tools, .draw")].filter((node) => {
  const { left, top, right, bottom } = node.getBoundingClientRect();
  return !node.hidden && (left < 0 || top < 0 || right > innerWidth + 0.5 || bottom > innerHeight + 0.5);
}).map((node) => node.className)"""

CAT_AND_TREE = ("tile-cat", "tile-left of", "tile-tree")


@pytest.mark.parametrize("size", [TALL, WIDE, PHONE], ids=["tall", "wide", "phone"])
def test_tapped_pictures_are_a_sentence_and_it_is_drawn(browser, server, size):
    with visiting(browser, server.url, size=size) as visitor:
        visitor.come("").tap("start", *CAT_AND_TREE, "tab-places", "tile-beach")
        visitor.reads("We are on the beach. A cat sits left of a tree.")
        visitor.draw()
        (turn,) = visitor.chat()["turns"]
        assert turn["parts"] == [{"text": "We are on the beach. A cat sits left of a tree."}]
        expect(visitor.page.locator(".thumb")).to_have_count(1)
        visitor.until(f"({OUTSIDE})().length === 0")  # no part of the page is pushed out, once the picture has its size
        visitor.leave()


def test_boxes_with_labels_come_before_the_picture(visitor: Visitor):
    visitor.come()
    visitor.page.evaluate("""() => {
      window.seen = [];
      new MutationObserver(() => {
        const boxes = document.querySelectorAll(".box-layer-open .box-label").length;
        const src = document.querySelector("img.drawn")?.src;
        const last = window.seen.at(-1);
        if (last?.boxes !== boxes || last?.src !== src) window.seen.push({ boxes, src });
      }).observe(document.getElementById("picture"), { subtree: true, childList: true, attributes: true });
    }""")
    visitor.tell(*CAT_AND_TREE)
    seen = visitor.page.evaluate("window.seen")
    with_boxes = [i for i, one in enumerate(seen) if one["boxes"] == 2]
    with_picture = [i for i, one in enumerate(seen) if one["src"]]
    assert with_boxes[0] < with_picture[0]
    assert len({seen[i]["src"] for i in with_picture}) >= 2, "no preview was shown"


def test_another_try_compare_and_choose(visitor: Visitor):
    visitor.come().tell(*CAT_AND_TREE)
    first = visitor.chat()["turns"][0]["picture"]["seed"]
    visitor.draw("anotherTry")
    assert visitor.chat()["turns"][0]["picture"]["seed"] != first
    visitor.tap("compare")
    expect(visitor.page.locator(".try")).to_have_count(2)
    visitor.page.locator(".try button").first.tap()
    visitor.becomes(lambda: visitor.chat()["turns"][0]["picture"]["seed"], first)


def test_undo_takes_back_step_by_step(visitor: Visitor):
    visitor.come().tell(*CAT_AND_TREE)
    visitor.draw("anotherTry")
    visitor.tap("undo")
    visitor.until("document.querySelectorAll('.thumb').length === 1")
    visitor.tap("undo")
    visitor.page.wait_for_selector(".invitation")
    visitor.becomes(lambda: visitor.chat()["turns"], [])
    visitor.until("window.held.size === 0")


def test_cancel_gives_the_words_back(visitor: Visitor):
    visitor.come()
    # the answer of the server is held back, so that there is time for a finger
    visitor.page.route("**/events", lambda route: None)
    visitor.tap(*CAT_AND_TREE, "draw", "cancel")
    visitor.page.wait_for_selector(".notice-info")
    visitor.reads("A cat sits left of a tree.")
    assert visitor.page.locator(".thumb").count() == 0


def test_events_that_do_not_pass_are_asked_for(visitor: Visitor):
    visitor.page.route("**/events", lambda route: route.fulfill(status=503, body=""))
    visitor.come().tell(*CAT_AND_TREE)
    assert len(visitor.chat()["turns"]) == 1
    visitor.errors.clear()  # Chromium tells of the 503 itself


def test_what_cannot_be_drawn_is_said(visitor: Visitor):
    visitor.come().tap("type")
    visitor.tap(*(f"key-{letter}" if letter != " " else "key-space" for letter in "A"))
    visitor.page.locator("textarea").fill("A cat sits left of a tree. Draw a dragon at the top.")
    visitor.draw()
    visitor.says(".notice-note", "I cannot draw a dragon yet.")
    visitor.tap("lang-de")
    visitor.says(".notice-note", "„dragon“ kann ich noch nicht malen.")
    visitor.tap("ok")
    visitor.gone(".notice-note")


def test_the_page_has_a_keyboard(visitor: Visitor):
    visitor.come().tap("type", "key-A", "key-space", "key-c", "key-a", "key-t", "key-s", "key-Delete", "key-.")
    expect(visitor.page.locator("textarea")).to_have_value("A cat.")
    assert visitor.page.locator("textarea").get_attribute("inputmode") == "none"
    visitor.tap("tap", "type", "key-B")
    expect(visitor.page.locator("textarea")).to_have_value("B")


def test_both_languages_tell_the_model_english(visitor: Visitor):
    visitor.come("attract=off&lang=de").tap("tile-lion", "tile-between", "tile-house", "tile-sunflower")
    visitor.reads("Ein Löwe sitzt zwischen einem Haus und einer Sonnenblume.")
    visitor.tap("lang-en")
    visitor.reads("A lion sits between a house and a sunflower.")
    visitor.tap("lang-de")
    visitor.draw()
    assert visitor.chat()["turns"][0]["parts"][0]["text"] == "A lion sits between a house and a sunflower."
    visitor.says(".caption", "Ein Löwe sitzt zwischen einem Haus und einer Sonnenblume.")


def test_the_book_is_saved_with_its_credit(visitor: Visitor):
    visitor.come().tell(*CAT_AND_TREE)
    visitor.tap("book")
    visitor.says(".book-credit", "OpenMoji (openmoji.org), CC BY-SA 4.0")
    with visitor.page.expect_download() as saved:
        visitor.tap("save")
    picture = Image.open(saved.value.path())
    assert picture.format == "PNG" and picture.width == 1600
    visitor.page.emulate_media(media="print")
    expect(visitor.page.locator(".app")).to_be_hidden()
    expect(visitor.page.locator(".book-credit")).to_be_visible()
    assert visitor.page.pdf().startswith(b"%PDF")


@pytest.mark.slow
def test_pictures_are_given_back(visitor: Visitor):
    """Held at the end: one a try; previews and saved books are not among them."""
    visitor.come().tell(*CAT_AND_TREE)
    for _ in range(5):
        visitor.draw("anotherTry")
    visitor.until("window.held.size <= 4")  # the tries that are kept to compare
    assert visitor.page.locator("img.drawn").evaluate("(img) => img.decode().then(() => img.naturalWidth)") == 32
