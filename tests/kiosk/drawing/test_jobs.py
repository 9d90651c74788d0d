"""What a job has told: for whoever listens from the start, comes later, or is slower than the worker."""

from __future__ import annotations

import asyncio
import threading

import pytest

from mgcc_kiosk.drawing.events import (
    BoxesFound,
    Cancelled,
    Drawn,
    Failed,
    Finished,
    JobEvent,
    Queued,
    Reading,
    StepDone,
)
from mgcc_kiosk.drawing.jobs import Attendance, Job, Kind, Order, Reason, State
from mgcc_kiosk.errors import Code
from tests.kiosk.drawing.test_fair_queue import nothing

STEPS = [StepDone(0, step, 4, b"preview") for step in range(1, 5)]
TOLD: list[JobEvent] = [Queued(1, None), Queued(0, None), Reading(None), BoxesFound(0, ()), *STEPS]
END = Finished(Drawn((), (), "", 0, {}))


def job(attendance: Attendance) -> Job:
    return Job(Order(Kind.TURN, "a", nothing, attendance=attendance))


def heard(one: Job, after: int = 0) -> list[tuple[int, JobEvent]]:
    async def listen() -> list[tuple[int, JobEvent]]:
        return [told async for told in one.follow(after) if told is not None]

    return asyncio.run(listen())


@pytest.mark.parametrize(("attendance", "previews"), [(Attendance.BY_PAGE, 1), (Attendance.BY_REQUEST, 4)])
def test_whoever_comes_late(attendance: Attendance, previews: int) -> None:
    """A page needs the last preview; a client of OpenAI's API has been promised a number of them."""
    one = job(attendance)
    for event in [*TOLD, END]:
        one.publish(event)
    events = [event for _, event in heard(one)]
    assert [event for event in events if isinstance(event, StepDone)] == STEPS[-previews:]
    assert [event for event in events if not isinstance(event, StepDone)] == [*TOLD[1:4], END]
    numbers = [number for number, _ in heard(one)]
    assert numbers == sorted(numbers) and heard(one, numbers[-2]) == heard(one)[-1:]


def test_a_listener_gets_what_another_thread_publishes() -> None:
    one = job(Attendance.BY_REQUEST)

    def work() -> None:
        for event in [*TOLD, END]:
            one.publish(event)

    thread = threading.Timer(0.05, work)
    thread.start()
    events = [event for _, event in heard(one)]
    assert events[-1] == END and events[-5:-1] == STEPS and not one.listened_to


def test_nothing_is_told_after_the_end() -> None:
    one = job(Attendance.BY_PAGE)
    one.publish(Cancelled())
    one.publish(END)
    assert one.end == Cancelled() and one.state is State.CANCELLED and len(heard(one)) == 1


@pytest.mark.parametrize(
    ("reason", "code"),
    [(Reason.UNWANTED, None), (Reason.TIME_LIMIT, Code.TIME_LIMIT), (Reason.SHUTDOWN, Code.SHUTTING_DOWN)],
)
def test_the_first_reason_to_end_stands(reason: Reason, code: Code | None) -> None:
    one = job(Attendance.BY_PAGE)
    one.ask_to_end(reason)
    one.ask_to_end(Reason.UNWANTED if reason is Reason.SHUTDOWN else Reason.SHUTDOWN)
    end = one.stopped()
    assert one.cancel.cancelled and (end == Cancelled() if code is None else isinstance(end, Failed))
    if isinstance(end, Failed):
        assert end.error.code is code


def test_a_quiet_job_beats() -> None:
    one = job(Attendance.BY_PAGE)

    async def listen() -> list[object]:
        found: list[object] = []
        async for told in one.follow(beat_s=0.01):
            found.append(told)
            if len(found) == 2:
                one.publish(Cancelled())
        return found

    assert asyncio.run(listen())[:2] == [None, None]
