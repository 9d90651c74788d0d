"""What happens by itself: jobs that nobody waits for, jobs that run too long, sessions that nobody uses."""

from __future__ import annotations

import asyncio
import time

from mgcc_kiosk.drawing.jobs import Attendance, Reason
from mgcc_kiosk.kiosk import Kiosk
from mgcc_kiosk.watchdog import Watchdog

_EVERY_S = 0.25


async def keep_house(kiosk: Kiosk) -> None:
    """Until it is cancelled."""
    watchdog = Watchdog.from_environment()
    watchdog.say("READY=1")
    try:
        while True:
            tidy(kiosk)
            if kiosk.ready:
                watchdog.feed()
            await asyncio.sleep(_EVERY_S)
    finally:
        watchdog.say("STOPPING=1")


def tidy(kiosk: Kiosk) -> None:
    """Once."""
    limits, now = kiosk.settings.limits, time.monotonic()
    if kiosk.worker.busy_s() > limits.time_s and (job := kiosk.worker.running) is not None:
        kiosk.worker.stop(job, Reason.TIME_LIMIT)
    for session in kiosk.sessions.all():
        session.drop_old(now - limits.keep_s)
        for job in session.active():
            by_page = job.order.attendance is Attendance.BY_PAGE
            if by_page and not job.listened_to and now - job.attended_s > limits.grace_s:
                kiosk.worker.stop(job, Reason.UNWANTED)
    kiosk.takeaways.drop_old()
    for name in kiosk.sessions.idle():
        kiosk.forget(name)
