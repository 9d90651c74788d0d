"""The queue: bounded, first come first served, and fair by session."""

from __future__ import annotations

import threading
from collections.abc import Generator

import pytest

from mgcc_kiosk.drawing.events import JobEvent
from mgcc_kiosk.drawing.fair_queue import FairQueue
from mgcc_kiosk.drawing.jobs import Job, Kind, Order
from mgcc_kiosk.errors import ApiError, Code
from mgcc_runtime import Cancel


def nothing(cancel: Cancel) -> Generator[JobEvent, None, None]:
    yield from ()


def job(session: str) -> Job:
    return Job(Order(Kind.STORY, session, nothing))


def filled(queue: FairQueue, sessions: str) -> list[Job]:
    jobs = [job(session) for session in sessions]
    for one in jobs:
        queue.put(one, retry_after_s=1)
    return jobs


def taken(queue: FairQueue, count: int) -> str:
    found = [queue.take() for _ in range(count)]
    return "".join(one.order.session for one in found if one is not None)


@pytest.mark.parametrize(
    ("came", "order"), [("abc", "abc"), ("aaab", "abaa"), ("aaabbc", "abcaba"), ("aabbccdd", "abcdabcd")]
)
def test_sessions_take_turns(came: str, order: str) -> None:
    queue = FairQueue(10)
    filled(queue, came)
    assert "".join(one.order.session for one in queue.order()) == order
    assert taken(queue, len(came)) == order


def test_who_comes_later_waits_for_one_job_of_each_session_at_most() -> None:
    queue = FairQueue(10)
    filled(queue, "aaaa")
    assert taken(queue, 2) == "aa"
    filled(queue, "b")
    assert taken(queue, 3) in ("baa", "aba")


def test_it_is_bounded() -> None:
    queue = FairQueue(2)
    first, _ = filled(queue, "ab")
    with pytest.raises(ApiError) as caught:
        queue.put(job("c"), retry_after_s=2.6)
    assert caught.value.code is Code.QUEUE_FULL and caught.value.headers() == {"retry-after": "3"}
    assert queue.remove(first) and not queue.remove(first)
    filled(queue, "c")
    assert taken(queue, 2) == "bc"


def test_closing_wakes_whoever_waits_and_gives_back_what_waited() -> None:
    queue, found = FairQueue(2), []
    waiting = threading.Thread(target=lambda: found.append(queue.take()))
    waiting.start()
    assert queue.close() == []
    waiting.join(10)
    assert found == [None]
    with pytest.raises(ApiError) as caught:
        queue.put(job("a"), retry_after_s=1)
    assert caught.value.code is Code.SHUTTING_DOWN
