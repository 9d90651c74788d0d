"""Boxes moved by finger, by two, by keys and by buttons; then drawn again where they are."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kiosk.page.browsing import Visitor
from tests.kiosk.page.test_telling import CAT_AND_TREE

pytestmark = pytest.mark.slow

NEAR = 0.02  # parts of the picture: boxes are told in tenths of a pixel of 32


@pytest.fixture
def told(visitor: Visitor) -> Visitor:
    """Has a picture with two boxes."""
    visitor.come().tell(*CAT_AND_TREE)
    visitor.becomes(lambda: len(visitor.boxes()), 2)
    return visitor


class Fingers:
    """Several at once, over Chrome's own protocol: Playwright has taps alone."""

    def __init__(self, visitor: Visitor) -> None:
        self.send = visitor.page.context.new_cdp_session(visitor.page).send
        self.at: dict[int, tuple[float, float]] = {}

    def _touch(self, kind: str) -> None:
        points: list[dict[str, Any]] = [{"x": x, "y": y, "id": number} for number, (x, y) in self.at.items()]
        self.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def down(self, number: int, x: float, y: float) -> None:
        self.at[number] = (x, y)
        self._touch("touchStart")

    def move(self, **by: tuple[float, float]) -> None:
        """Each finger, named f1, f2 ..., by so much, in four steps."""
        for _ in range(4):
            for name, (dx, dy) in by.items():
                x, y = self.at[int(name[1:])]
                self.at[int(name[1:])] = (x + dx / 4, y + dy / 4)
            self._touch("touchMove")

    def up(self, number: int) -> None:
        del self.at[number]
        self._touch("touchEnd")


def centre(visitor: Visitor, box: str) -> tuple[float, float]:
    found = visitor.page.locator(f'.box[data-id="{box}"]').bounding_box()
    assert found is not None
    return found["x"] + found["width"] / 2, found["y"] + found["height"] / 2


def side(visitor: Visitor) -> float:
    """Of the picture, in pixels of the screen."""
    found = visitor.page.locator(".box-layer").bounding_box()
    assert found is not None
    return found["width"]


def test_a_finger_moves_a_box_and_it_is_drawn_there(told: Visitor):
    before = told.boxes()
    one, other = before
    fingers, unit = Fingers(told), side(told)
    fingers.down(1, *centre(told, one))
    fingers.move(f1=(-0.25 * unit, 0.25 * unit))
    assert told.page.locator('[data-key="redraw"]').count() == 0  # nothing is settled while a finger holds it
    fingers.up(1)
    told.page.wait_for_selector('[data-key="redraw"]')
    after = told.boxes()
    assert after[one][0] == pytest.approx(before[one][0] - 0.25, abs=NEAR)
    assert after[one][1] == pytest.approx(before[one][1] + 0.25, abs=NEAR)
    assert after[one][2:] == pytest.approx(before[one][2:])
    assert after[other] == before[other]
    told.draw("redraw")
    drawn = {box["id"]: [edge / 32 for edge in box["xyxy"]] for box in told.chat()["turns"][0]["picture"]["boxes"]}
    assert drawn[one][:2] == pytest.approx(after[one][:2], abs=NEAR)
    assert drawn[other][:2] == pytest.approx(before[other][:2], abs=NEAR)


def test_two_fingers_move_two_boxes(told: Visitor):
    before = told.boxes()
    one, other = before
    fingers, unit = Fingers(told), side(told)
    fingers.down(1, *centre(told, one))
    fingers.down(2, *centre(told, other))
    fingers.move(f1=(-0.125 * unit, 0), f2=(0, -0.125 * unit))
    fingers.up(1)
    fingers.up(2)
    told.page.wait_for_selector('[data-key="redraw"]')
    after = told.boxes()
    assert after[one][:2] == pytest.approx([before[one][0] - 0.125, before[one][1]], abs=NEAR)
    assert after[other][:2] == pytest.approx([before[other][0], before[other][1] - 0.125], abs=NEAR)


def test_two_fingers_on_one_box_change_its_size(told: Visitor):
    before = told.boxes()
    one = next(iter(before))
    fingers, unit = Fingers(told), side(told)
    x, y = centre(told, one)
    fingers.down(1, x - 0.1 * unit, y)
    fingers.down(2, x + 0.1 * unit, y)
    fingers.move(f1=(0.04 * unit, 0), f2=(-0.04 * unit, 0))
    fingers.up(1)
    fingers.up(2)
    told.becomes(lambda: told.boxes()[one][2], pytest.approx(before[one][2] * 0.6, abs=NEAR))


def test_a_touch_that_the_system_takes_changes_nothing(told: Visitor):
    before = told.boxes()
    fingers = Fingers(told)
    fingers.down(1, *centre(told, next(iter(before))))
    fingers.move(f1=(-60, 60))
    fingers.at.clear()
    fingers.send("Input.dispatchTouchEvent", {"type": "touchCancel", "touchPoints": []})
    told.becomes(told.boxes, before)
    assert told.page.locator('[data-key="redraw"]').count() == 0


def test_buttons_do_what_a_finger_does(told: Visitor):
    before = told.boxes()
    one = next(iter(before))
    told.tap("moveThings", f"box-{one}", "box-left", "box-down", "box-smaller")
    told.becomes(lambda: told.boxes()[one][2] < before[one][2], True)
    left, top, width, _ = told.boxes()[one]
    assert left > before[one][0] - 1 / 16 and width < before[one][2] and top > before[one][1]
    told.tap("put-back")
    told.becomes(told.boxes, before)
    told.tap(f"box-{one}", "box-takeAway")
    told.becomes(lambda: one in told.boxes(), False)
    told.draw("redraw")
    assert len(told.chat()["turns"][0]["picture"]["boxes"]) == 1


def test_keys_move_and_size_a_box(told: Visitor):
    before = told.boxes()
    one = next(iter(before))
    told.page.locator(f'.box[data-id="{one}"] .box-grip').focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowDown", "Shift+ArrowLeft"):
        told.page.keyboard.press(key)
    step = 1 / 32
    wanted = [before[one][0] - 2 * step, before[one][1] + step, before[one][2] - step]
    told.becomes(lambda: told.boxes()[one][:3], pytest.approx(wanted, abs=NEAR))
    told.says("#announcer", "wide")
    told.page.keyboard.press("Delete")
    told.becomes(lambda: one in told.boxes(), False)


def test_a_box_stays_in_the_picture(told: Visitor):
    one = next(iter(told.boxes()))
    fingers, unit = Fingers(told), side(told)
    fingers.down(1, *centre(told, one))
    fingers.move(f1=(-unit, unit))
    fingers.up(1)
    told.page.wait_for_selector('[data-key="redraw"]')
    left, top, width, height = told.boxes()[one]
    assert left == 0 and top + height == pytest.approx(1) and width > 0
