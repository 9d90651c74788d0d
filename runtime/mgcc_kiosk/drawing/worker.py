"""The one worker: takes jobs from the queue and draws them, one after the other.

Two at once take as long as one after the other (1.22 to 1.35 s against 1.21 on two cores), so one thread it is.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing

from mgcc_kiosk.drawing.estimates import Estimates
from mgcc_kiosk.drawing.events import End, Failed, Finished, Queued, Reading
from mgcc_kiosk.drawing.fair_queue import FairQueue
from mgcc_kiosk.drawing.jobs import Job, Order, Reason, State
from mgcc_kiosk.drawing.tally import Tally
from mgcc_kiosk.errors import ApiError, Code, api_error, log_failure
from mgcc_runtime.errors import CancelledError, MgccError

_LOG = logging.getLogger(__name__)
_UNKNOWN_WAIT_S = 2.0


class Worker:
    """`submit` and `stop` from any thread."""

    def __init__(self, queue: FairQueue, tally: Tally) -> None:
        self.queue, self._tally = queue, tally
        self.estimates = Estimates()
        self.running: Job | None = None
        self._signed_s = time.monotonic()  # the last sign of life
        self._thread = threading.Thread(target=self._work, name="mgcc-worker", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, order: Order) -> Job:
        """ApiError where no more is taken."""
        job = Job(order)
        self.queue.put(job, retry_after_s=(self._wait_ms(None) or _UNKNOWN_WAIT_S * 1e3) / 1e3)
        self._tell_positions()
        return job

    def stop(self, job: Job, reason: Reason = Reason.UNWANTED) -> None:
        """It ends within one call of a stage, at once where it waits; nothing where it has ended."""
        job.ask_to_end(reason)
        if self.queue.remove(job):
            self._end(job, job.stopped())
            self._tell_positions()

    def end(self) -> None:
        """Take no more jobs; those that wait end, the running one goes on."""
        for job in self.queue.close():
            job.ask_to_end(Reason.SHUTDOWN)
            self._end(job, job.stopped())

    def position(self, job: Job) -> int:
        """Jobs before it."""
        order = self.queue.order()
        return order.index(job) + (self.running is not None) if job in order else 0

    def estimate_ms(self, job: Job) -> float | None:
        """Until it is done."""
        if job.state is State.RUNNING:
            return self._left_ms(job)
        own = self.estimates.of(job.order)
        return None if own is None else (self._wait_ms(job) or 0.0) + own

    def busy_s(self) -> float:
        """Since when the running job runs; 0 without one."""
        job = self.running
        return time.monotonic() - job.began_s if job is not None and job.began_s is not None else 0.0

    def silent_s(self) -> float:
        """Since the last sign of life; 0 while it waits for work, and without end where its thread is gone."""
        if not self._thread.is_alive():
            return float("inf")
        return time.monotonic() - self._signed_s if self.running is not None else 0.0

    def _wait_ms(self, job: Job | None) -> float | None:
        """Of all jobs before this one, or of all."""
        order = self.queue.order()
        before = order[: order.index(job)] if job in order else order
        known = [self.estimates.of(other.order) for other in before]
        if self.running is not None:
            known.append(self._left_ms(self.running))
        return None if None in known else sum(ms for ms in known if ms is not None)

    def _left_ms(self, job: Job) -> float | None:
        own = self.estimates.of(job.order)
        ran_ms = 0.0 if job.began_s is None else (time.monotonic() - job.began_s) * 1e3
        return None if own is None else max(0.0, own - ran_ms)

    def _tell_positions(self) -> None:
        for job in self.queue.order():
            if (position := self.position(job)) != job.told_position:
                job.told_position = position
                job.publish(Queued(position, self.estimate_ms(job)))

    def _work(self) -> None:
        while self._draw_next():
            pass

    def _draw_next(self) -> bool:
        """False once there is no more. It holds no job while it waits: one that is forgotten frees its chat."""
        if (job := self.queue.take()) is None:
            return False
        self._signed_s, self.running = time.monotonic(), job
        job.begin()
        self._tell_positions()
        end = self._draw(job)
        self.running = None
        self._end(job, end)
        self._tell_positions()
        return True

    def _draw(self, job: Job) -> End:
        started = time.perf_counter()
        try:
            job.cancel.check()
            job.publish(Reading(self.estimates.of(job.order)))
            with closing(job.order.work(job.cancel)) as events:
                for event in events:
                    self._signed_s = time.monotonic()
                    if isinstance(event, Finished):
                        self.estimates.learn(job.order, (time.perf_counter() - started) * 1e3)
                        return event
                    job.publish(event)
            raise AssertionError("the work has no end")
        except CancelledError:
            return job.stopped()
        except ApiError as error:
            return Failed(error)
        except MgccError as error:
            return Failed(api_error(error))
        except Exception as error:  # noqa: BLE001 (the worker outlives whatever a job meets)
            log_failure(_LOG, "a job", error)
            return Failed(ApiError(Code.ENGINE_ERROR, "drawing failed for a reason of the server's; its log says more"))

    def _end(self, job: Job, end: End) -> None:
        self._tally.ended(job, end)
        job.publish(end)
