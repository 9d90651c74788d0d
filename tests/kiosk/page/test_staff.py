"""Behind a key: a screen that staff let in, the staff's own screen, and a story that goes to a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from mgcc_kiosk.access import pass_of
from tests.kiosk.page.browsing import PHONE, TALL, Visitor, visiting
from tests.kiosk.page.test_accessibility import LEAST_PX, SMALL, faults
from tests.kiosk.page.test_telling import CAT_AND_TREE
from tests.kiosk.serving import Served, serving
from tests.kiosk.test_scale import free_port
from tests.kiosk.test_security import KEY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def locked(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    port = str(free_port())
    options = ("--port", port, "--phone-url", f"http://127.0.0.1:{port}")
    with serving(tiny_bundle, tmp_path_factory.mktemp("locked"), *options, MGCC_API_KEY=KEY) as served:
        yield served


def only_refused(visitor: Visitor) -> None:
    """Chromium tells of each 401 itself; nothing else went wrong."""
    assert all("401" in said for said in visitor.errors), visitor.errors
    visitor.errors.clear()


def by_link(visitor: Visitor, query: str = "attract=off") -> Visitor:
    visitor.page.goto(f"{visitor.url}/?{query}#pass={pass_of(KEY)}")
    expect(visitor.page.locator(".tile").first).to_be_visible()
    return visitor


def knock(visitor: Visitor, key: str, press: str) -> None:
    visitor.page.locator('[data-key="staffKey"]').fill(key)
    visitor.tap(press)


def test_a_screen_is_let_in_once_by_the_key(browser: Browser, locked: Served):
    with visiting(browser, locked.url) as visitor:
        page = visitor.page
        page.goto(f"{locked.url}/?attract=off")
        dialog = page.locator("dialog.locked")
        expect(dialog).to_be_visible()
        page.keyboard.press("Escape")
        expect(dialog).to_be_visible()
        assert faults(visitor) == [] and page.evaluate(SMALL, LEAST_PX) == []
        knock(visitor, f"{KEY}x", "letIn")
        expect(dialog).to_contain_text("That is not the key")
        knock(visitor, KEY, "letIn")
        expect(dialog).to_have_count(0)
        expect(page.locator(".tile").first).to_be_visible()
        only_refused(visitor)
        visitor.tell(*CAT_AND_TREE)
        page.reload()
        expect(page.locator(".thumb img")).to_be_visible()
        seen = "JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }]) + document.body.innerHTML"
        assert KEY not in page.evaluate(seen) and pass_of(KEY) not in page.evaluate(seen)
        visitor.leave()


def test_a_screen_is_let_in_by_a_link(browser: Browser, locked: Served):
    with visiting(browser, locked.url, size=PHONE) as visitor:
        visitor.page.goto(f"{locked.url}/#pass={pass_of('another key of the tests')}")
        expect(visitor.page.locator("dialog.locked")).to_be_visible()
        only_refused(visitor)
        visitor.page.goto("about:blank")
        by_link(visitor)
        assert "pass" not in visitor.page.url


def test_staff_begin_a_visitors_story_anew(browser: Browser, locked: Served):
    with visiting(browser, locked.url) as visitor, visiting(browser, locked.url, size=TALL) as staff:
        by_link(visitor).tell(*CAT_AND_TREE)
        staff.page.goto(f"{locked.url}/staff.html")
        knock(staff, "wrong", "staffOpen")
        expect(staff.page.locator("[role=alert]")).to_have_text("That is not the key.")
        only_refused(staff)
        knock(staff, KEY, "staffOpen")
        expect(staff.page.locator("#health")).to_contain_text("Pictures drawn")
        expect(staff.page.locator("#sessions li")).to_have_count(1)
        expect(staff.page.locator("#jobs")).to_have_text("Nothing is drawn just now.")
        staff.tap("otherScreen")
        expect(staff.page.locator(".qr")).to_be_visible()
        assert faults(staff) == [] and staff.page.evaluate(SMALL, LEAST_PX) == []
        staff.page.locator('[data-key^="restart-"]').tap()
        expect(staff.page.locator("#sessions")).to_have_text("Nobody is here.")
        expect(visitor.page.locator(".thumb img")).to_have_count(0)  # with its next sign of life
        expect(visitor.page.locator(".sentence")).to_contain_text("Tap pictures")
        staff.tap("lockScreen", "staffLeave")
        expect(staff.page.locator('[data-key="staffKey"]')).to_be_visible()
        visitor.leave()


def test_visitors_find_the_staffs_screen_where_there_is_one(browser: Browser, locked: Served, server: Served):
    with visiting(browser, locked.url) as visitor:
        by_link(visitor).tap("ease")
        visitor.page.locator('[data-key="staff"]').tap()
        expect(visitor.page).to_have_url(re.compile(r"/staff\.html\?lang=en$"))
        expect(visitor.page.locator('[data-key="staffKey"]')).to_be_focused()
        visitor.page.locator("#back").tap()
        expect(visitor.page.locator(".tile, .attract:not([hidden])").first).to_be_visible()
    with visiting(browser, server.url) as visitor:
        visitor.come().tap("ease")
        expect(visitor.page.locator('[data-key="switch-contrast"]')).to_be_visible()
        expect(visitor.page.locator('[data-key="staff"]')).to_have_count(0)


def test_a_story_goes_to_a_phone(browser: Browser, locked: Served):
    with visiting(browser, locked.url) as visitor:
        by_link(visitor).tell(*CAT_AND_TREE)
        visitor.tap("book", "takeHome")
        expect(visitor.page.locator(".takeaway .qr")).to_be_visible()
        assert visitor.page.evaluate("document.querySelector('.takeaway .qr').naturalWidth") > 50
        assert faults(visitor) == [] and visitor.page.evaluate(SMALL, LEAST_PX) == []
        url = visitor.page.locator(".takeaway .qr-url").inner_text()
        held = visitor.held_pictures()
        visitor.tap("closeTakeaway")
        expect(visitor.page.locator(".takeaway")).to_have_count(0)
        assert visitor.held_pictures() == held - 1
        with visiting(browser, locked.url, size=PHONE) as phone:
            got = phone.page.goto(url)
            assert got is not None and got.ok and got.headers["content-type"] == "image/png"
            assert phone.page.evaluate("document.images[0].naturalWidth") == 1600
            assert all("404" in said for said in phone.errors)  # the icon that a browser asks for beside a picture
            phone.errors.clear()
        visitor.leave()
