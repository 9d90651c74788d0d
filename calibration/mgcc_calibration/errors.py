"""What can go wrong in a calibration; every message is one sentence with what came, what was expected, what to do."""

from __future__ import annotations

from mgcc_runtime.errors import InputError, MgccError


class CalibrationError(MgccError):
    """A stage cannot be quantised."""


class DataError(InputError):
    """Calibration data is missing, damaged, constant, or holds NaN or infinity."""


class BudgetError(CalibrationError):
    """No graph keeps to the quality budget."""


class MethodError(InputError):
    """A method, a block size or another setting that does not fit the graph."""


class FusionError(CalibrationError):
    """A language model's graph has another structure than the one that fusing knows."""
