"""How long a job will take, from those before it."""

from __future__ import annotations

from mgcc_kiosk.drawing.jobs import Kind, Order

_WEIGHT = 0.3  # of the newest: after three others an odd one counts for a third


class Estimates:
    """A running mean of milliseconds a picture, by kind of job."""

    def __init__(self) -> None:
        self._picture_ms: dict[Kind, float] = {}

    def learn(self, order: Order, took_ms: float) -> None:
        each = took_ms / order.pictures
        before = self._picture_ms.get(order.kind, each)
        self._picture_ms[order.kind] = before + _WEIGHT * (each - before)

    def of(self, order: Order) -> float | None:
        """None before anything was drawn."""
        if not self._picture_ms:
            return None
        usual = max(self._picture_ms.values())
        return order.pictures * self._picture_ms.get(order.kind, usual)
