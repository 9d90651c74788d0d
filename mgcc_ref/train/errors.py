"""What a run of the trainer cannot go on with."""

from __future__ import annotations


class TrainingError(ValueError):
    """A step and its run's folder or profile do not go together; the message says what to do."""
