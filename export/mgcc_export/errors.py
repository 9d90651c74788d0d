"""What can go wrong in a build; every message is one sentence with what came, what was expected and what to do."""

from __future__ import annotations

from mgcc_runtime.errors import InputError, MgccError


class ExportError(MgccError):
    """A stage cannot be exported."""


class EngineRefusedError(ExportError):
    """TensorRT's compiler does not take a graph whose values are right."""


class UnavailableError(InputError):
    """A target, precision or stage that this version does not build."""


class ValidationError(ExportError):
    """An exported graph is not the stage that the contract declares."""


class NameMismatchError(ValidationError):
    """Inputs or outputs of the graph are not named and ordered as the contract says."""


class AxisMismatchError(ValidationError):
    """A dynamic axis is fixed, misnamed or at another place than the contract says."""


class ShapeMismatchError(ValidationError):
    """A fixed length, an element type or the shape of a result is not the contract's."""


class ValueMismatchError(ValidationError):
    """The graph's values differ from PyTorch's by more than the tolerance."""
