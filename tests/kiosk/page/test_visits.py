"""Visitors come and go: idle in two tiers, everything wiped; a reload in mid-job; a renderer or a server that dies."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Request, Route, expect

from tests.kiosk.page.browsing import Visitor, visiting
from tests.kiosk.page.test_telling import CAT_AND_TREE
from tests.kiosk.serving import Served, serving

pytestmark = pytest.mark.slow

WORDS = "A cat sits left of a tree."


def test_nobody_there_is_asked_then_wiped(visitor: Visitor):
    visitor.come("idle=3&warn=2").tap("start")
    visitor.tap("lang-de", "ease", "switch-largeText", "switch-contrast", "switch-lowReach")
    visitor.page.keyboard.press("Escape")
    visitor.tell(*CAT_AND_TREE)
    visitor.page.wait_for_selector(".still-there")
    visitor.says(".still-there", "Noch da?")
    assert visitor.held_pictures() == 1
    visitor.page.wait_for_selector(".attract:not([hidden])")
    visitor.becomes(lambda: visitor.api("/api/session"), {"chats": [], "jobs": []})
    visitor.becomes(visitor.held_pictures, 0)
    assert WORDS not in visitor.page.content() and "Katze" not in visitor.page.content()
    left = "({ ...document.documentElement.dataset, lang: document.documentElement.lang })"
    visitor.becomes(lambda: visitor.page.evaluate(left), {"lang": "en"})
    visitor.gone("dialog")


def test_a_touch_says_that_somebody_is_there(visitor: Visitor):
    visitor.come("attract=off&idle=2&warn=30").tap("tile-cat")
    visitor.page.wait_for_selector(".still-there")
    visitor.page.locator(".still-there .main").tap()
    visitor.gone(".still-there")
    visitor.reads("There is a cat.")


def test_starting_over_asks_first(visitor: Visitor):
    visitor.come().tell(*CAT_AND_TREE)
    visitor.tap("restart")
    visitor.page.locator("dialog .plain").tap()
    assert len(visitor.chat()["turns"]) == 1
    visitor.tap("restart")
    visitor.page.locator("dialog .warn").tap()
    visitor.page.wait_for_selector(".invitation")
    visitor.becomes(lambda: visitor.api("/api/session")["chats"], [])


def test_starting_over_in_mid_job_leaves_no_words(visitor: Visitor):
    visitor.come()
    visitor.page.route("**/events", lambda route: None)
    visitor.tap(*CAT_AND_TREE, "draw", "restart")
    visitor.page.locator("dialog .warn").tap()
    visitor.page.wait_for_selector(".wait", state="detached")
    visitor.says(".sentence-words", "Tap pictures to make a sentence")
    visitor.becomes(lambda: visitor.api("/api/session"), {"chats": [], "jobs": []})


def test_words_on_their_way_do_not_reach_the_next_visitor(visitor: Visitor):
    """The first one leaves while the story's beginning is still on its way to the server."""
    visitor.come()
    on_their_way: list[Route] = []

    def hold(route: Route) -> None:
        on_their_way.append(route)

    visitor.page.route("**/api/chats", hold, times=1)
    told: list[str] = []
    visitor.page.on("request", lambda request: request.method != "GET" and told.append(_asked(request)))
    visitor.tap(*CAT_AND_TREE, "draw")
    visitor.becomes(lambda: len(on_their_way), 1)
    visitor.tap("restart")
    visitor.page.locator("dialog .warn").tap()
    visitor.page.wait_for_selector(".invitation")
    visitor.tap("tile-fox", "draw")  # the next one does not wait
    on_their_way[0].continue_()
    visitor.drawn()
    assert [turn["parts"][0]["text"] for turn in visitor.chat()["turns"]] == ["There is a fox."]
    assert [asked for asked in told if "heartbeat" not in asked] == [
        "POST chats", "DELETE session", "POST chats", "POST turns"
    ]  # fmt: skip


def _asked(request: Request) -> str:
    return f"{request.method} {request.url.rpartition('/')[2]}"


def test_a_reload_in_mid_job_goes_on(visitor: Visitor, server: Served):
    visitor.come().tell(*CAT_AND_TREE)
    server.post(f"{server.chat()}/turns", {"text": "A cat.", "n": 10, "steps": 50})  # another's, so that ours waits
    visitor.tap(*CAT_AND_TREE, "draw")
    visitor.until("document.querySelector('.wait') !== null")
    visitor.page.reload()
    visitor.until("document.querySelectorAll('.thumb img').length === 2")
    visitor.drawn()
    assert len(visitor.chat()["turns"]) == 2
    expect(visitor.page.locator(".attract")).to_be_hidden()
    # and it can go on from there
    visitor.tap("undo")
    visitor.until("document.querySelectorAll('.thumb').length === 1")


def test_a_renderer_that_dies_is_told_by_the_server(browser: Browser, server: Served):
    """The browser's process lives on, so only the missing heartbeat tells; a fresh page finds the story again."""
    with visiting(browser, server.url) as visitor:
        visitor.come().tell(*CAT_AND_TREE)
        assert server.get("/health")["page_heartbeat_s"] < 30
        with visitor.page.expect_event("crash"):
            visitor.page.context.new_cdp_session(visitor.page).send("Page.navigate", {"url": "chrome://crash"})
        time.sleep(11)  # longer than from one beat to the next
        assert server.get("/health")["page_heartbeat_s"] > 10
        again = Visitor(visitor.page.context.new_page(), server.url).come()
        again.page.wait_for_selector(".thumb img")
        again.becomes(lambda: server.get("/health")["page_heartbeat_s"] < 10, True)
        assert again.errors == []


def test_a_killed_server_loses_nothing(browser: Browser, tiny_bundle: Path, tmp_path: Path):
    with serving(tiny_bundle, tmp_path) as first:
        port = first.url.rpartition(":")[2]
        with visiting(browser, first.url) as visitor:
            visitor.come().tell(*CAT_AND_TREE)
            before = visitor.chat()["turns"][0]["picture"]
            first.process.kill()
            first.process.wait()
            visitor.tap(*CAT_AND_TREE, "draw")
            visitor.page.wait_for_selector(".offline:not([hidden])")
            with serving(tiny_bundle, tmp_path, "--port", port):
                visitor.page.wait_for_selector(".offline", state="hidden")
                visitor.tap("draw")
                visitor.until("document.querySelectorAll('.thumb img').length === 2")
                visitor.drawn()
                turns = visitor.chat()["turns"]
                assert [turn["parts"][0]["text"] for turn in turns] == [WORDS, WORDS]
                assert turns[0]["picture"] is None or turns[0]["picture"]["seed"] == before["seed"]
                visitor.errors.clear()  # Chromium tells of each refused connection itself
