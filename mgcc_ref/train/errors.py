"""The error that stops a run of the trainer."""

from __future__ import annotations


class TrainingError(ValueError):
    """A step does not fit its run's folder or profile; the message says what to do."""
