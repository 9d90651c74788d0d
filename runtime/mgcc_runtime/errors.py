"""Every error a user can meet. The message is one sentence: the thing, what came, what was expected, what to do."""

from __future__ import annotations

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # by Ctrl-C, as shells have it


class MgccError(Exception):
    """Base of all errors raised on purpose; `exit_code` is what the command line returns."""

    exit_code: int = EXIT_FAILED


class InputError(MgccError):
    """What the caller gave cannot be used: arguments, prompt, images, boxes or the bundle."""

    exit_code = EXIT_BAD_INPUT


class OptionError(InputError):
    """An option is outside its range."""


class PromptError(InputError):
    """The parts of a prompt are empty, of a wrong type or contradictory."""


class ContextLimitError(PromptError):
    """The prompt does not fit into the language model's context."""


class ImageError(InputError):
    """An image is missing, broken, too large or of an unusable form."""


class LayoutError(InputError):
    """Boxes given by the user cannot be drawn."""


class BundleError(InputError):
    """A bundle is missing, truncated, altered, of a newer schema or not for this machine."""


class EngineError(MgccError):
    """An engine is missing or could not open or run a stage."""


class ContractError(EngineError):
    """A stage's tensors do not have the names, types or shapes that the contract declares."""


class StageValueError(EngineError):
    """A stage gave NaN or infinity."""


class StageMemoryError(EngineError):
    """The machine has too little memory for a stage."""


class ClosedError(MgccError):
    """A pipeline or session was used after `close`."""


class CancelledError(MgccError):
    """A request was cancelled by the `Cancel` that was given with it."""

    exit_code = EXIT_INTERRUPTED


class OutputError(MgccError):
    """A result could not be written."""


class KitError(MgccError):
    """A device kit cannot be made: pip is missing, or has no wheel for the device."""
