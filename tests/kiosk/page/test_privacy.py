"""Nothing of a visitor is on disk or goes elsewhere: every file that browser or server wrote is searched."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.kiosk.page.browsing import ARGUMENTS, COUNTING, Visitor, chromium
from tests.kiosk.serving import serving

pytestmark = pytest.mark.slow

SECRET = "Wilhelmina Quackenbush"


def holding(folder: Path, secret: str) -> list[Path]:
    """The files below `folder` that hold it, in either of Chromium's encodings."""
    wanted = [secret.encode(code) for code in ("utf-8", "utf-16-le")]
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if any(one in path.read_bytes() for one in wanted)]


def test_no_file_holds_what_a_visitor_typed(browser: Browser, tiny_bundle: Path, tmp_path: Path):
    """With a profile on disk, which a kiosk's `--incognito` does not even have."""
    profile, temporary = tmp_path / "profile", tmp_path / "tmp"
    temporary.mkdir()
    options = {"TMPDIR": str(temporary), "HOME": str(tmp_path / "home")}
    with serving(tiny_bundle, tmp_path, **options) as server:
        program = chromium()
        context = browser.browser_type.launch_persistent_context(
            profile, executable_path=program.path, env={**os.environ, **program.environment}, args=list(ARGUMENTS),
            has_touch=True, reduced_motion="reduce",
        )  # fmt: skip
        context.add_init_script(COUNTING)
        visitor = Visitor(context.pages[0], server.url).come("idle=3&warn=2")
        visitor.tap("start", "type")
        visitor.page.locator("textarea").fill(f"A cat called {SECRET} sits left of a tree.")
        visitor.draw()
        assert SECRET in visitor.chat()["turns"][0]["parts"][0]["text"]
        visitor.page.reload()
        visitor.page.wait_for_selector(".thumb img")
        visitor.page.wait_for_selector(".attract:not([hidden])")
        assert SECRET not in visitor.page.content()
        context.close()
    assert len(list(profile.rglob("*"))) > 10
    (tmp_path / "planted").write_text(SECRET, encoding="utf-16-le")
    assert holding(tmp_path, SECRET) == [tmp_path / "planted"]
