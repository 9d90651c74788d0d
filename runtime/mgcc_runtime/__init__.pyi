"""The public names, once: type checkers read them here, and `__init__.py` finds in this file where each comes from."""

from mgcc_runtime.bundle.folder import (
    Check as Check,
)
from mgcc_runtime.cancelling import (
    Cancel as Cancel,
)
from mgcc_runtime.contract import (
    Grounder as Grounder,
)
from mgcc_runtime.conversation.chat import (
    Chat as Chat,
    Overflow as Overflow,
)
from mgcc_runtime.decoding import (
    TextOptions as TextOptions,
)
from mgcc_runtime.errors import (
    BundleError as BundleError,
    CancelledError as CancelledError,
    ClosedError as ClosedError,
    ContextLimitError as ContextLimitError,
    ContractError as ContractError,
    EngineError as EngineError,
    ImageError as ImageError,
    InputError as InputError,
    KitError as KitError,
    LayoutError as LayoutError,
    MgccError as MgccError,
    OptionError as OptionError,
    OutputError as OutputError,
    PromptError as PromptError,
    StageMemoryError as StageMemoryError,
    StageValueError as StageValueError,
)
from mgcc_runtime.layout import (
    Box as Box,
    BoxMode as BoxMode,
)
from mgcc_runtime.pipeline import (
    Pipeline as Pipeline,
)
from mgcc_runtime.request import (
    Draw as Draw,
    Preview as Preview,
)
from mgcc_runtime.results import (
    BoxesReady as BoxesReady,
    Event as Event,
    ImageReady as ImageReady,
    Note as Note,
    NoteCode as NoteCode,
    Reply as Reply,
    ReplyReady as ReplyReady,
    Result as Result,
    StepPreview as StepPreview,
    TextDelta as TextDelta,
)
from mgcc_runtime.scene import (
    Scene as Scene,
)
from mgcc_runtime.streams import (
    Stream as Stream,
)

__version__: str
