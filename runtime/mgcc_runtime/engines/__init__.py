"""Engines run stages. The rest of the runtime sees only `open_session` and `Session`, whatever runs underneath.

An engine is one module of this folder with `open_session(path, spec, options) -> EngineSession`. `Session` wraps
what it returns, so that checks of shapes, types and values are the same for every engine.
"""

from __future__ import annotations

import enum
import importlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mgcc_runtime.cancelling import check_wanted
from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines.checks import bind_axes, check_finite, check_tensors
from mgcc_runtime.engines.unreported import keep_onnxruntime_quiet
from mgcc_runtime.errors import EngineError, MgccError, StageMemoryError
from mgcc_runtime.lifetime import Lifetime, working
from mgcc_runtime.names import EngineName
from mgcc_runtime.options import THREADS, check_word, settle

keep_onnxruntime_quiet()

Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class AtOnce:
    """The most that one call of a stage is given, so that a request can be cancelled between two calls."""

    positions: int  # of the language model
    images: int  # of the vision encoder


#: ONNX Runtime and OpenVINO end a call half-way, so pieces are for Ctrl-C, and may be long. On two cores the story's
#: usual 138 positions took 118 ms in 8 bits as one piece and 163 ms in pieces of 64, 14 % of a turn. Pictures took 6 ms
#: each, however many at a time.
_BY_CORES = AtOnce(positions=256, images=1)
#: A call of few positions takes as long as it takes to read the weights.
_BY_GPU = AtOnce(positions=256, images=8)

_JETSON = "jetson"  # an extra that installs nothing: JetPack has the package


@dataclass(frozen=True)
class _Engine:
    """An engine that a manifest may name."""

    module: str  # below this package
    package: str  # that it imports
    extra: str  # of the distribution, that installs it
    queues: bool = False  # a call that brings nothing to the host comes back before its work is done
    at_once: AtOnce = _BY_CORES

    @property
    def way_to_get(self) -> str:
        if self.extra == _JETSON:
            return (
                "on a Jetson it comes with JetPack (`apt install python3-libnvinfer`), in a virtual environment made "
                "with --system-site-packages; elsewhere install it with `pip install 'mgcc-edge[tensorrt]'`, with "
                "NVIDIA's package index as an extra one, which alone has its libraries"
            )
        return f"install it with `pip install 'mgcc-edge[{self.extra}]'`"


_ENGINES = {
    EngineName.HOST: _Engine("host", "numpy", "cpu"),
    EngineName.ONNXRUNTIME: _Engine("onnxruntime.cpu", "onnxruntime", "cpu"),
    EngineName.OPENVINO: _Engine("openvino.cpu", "openvino", "openvino"),
    EngineName.OPENVINO_BF16: _Engine("openvino.bf16", "openvino", "openvino"),
    EngineName.ONNXRUNTIME_GPU: _Engine("onnxruntime.gpu", "onnxruntime", "gpu", at_once=_BY_GPU),
    EngineName.TENSORRT: _Engine("tensorrt.session", "tensorrt", _JETSON, queues=True, at_once=_BY_GPU),
    EngineName.TENSORRT_RTX: _Engine("tensorrt.rtx", "tensorrt_rtx", "rtx", queues=True, at_once=_BY_GPU),
}


#: What TensorRT for Jetsons is linked to, and containers get from the host.
_DLA_COMPILER = "libnvdla_compiler.so"


def way_to_get(engine: str, error: Exception) -> str:
    """What to do where the package of an engine, by its name in a manifest, cannot be imported for this error."""
    if _DLA_COMPILER in str(error):
        return (
            "a container gets this file from the Jetson that it runs on: install it there with "
            "`apt install nvidia-l4t-dla-compiler`, or, on JetPack 7.2 (L4T R39), which has none, install the host's "
            "own TensorRT in the container or mount JetPack 6's file at /usr/lib/aarch64-linux-gnu/nvidia"
        )
    return _ENGINES[engine].way_to_get


def extra_of(engine: str) -> str:
    """The extra of the distribution that installs an engine, by its name in a manifest; KeyError for another name."""
    return _ENGINES[engine].extra


# what engines say, in their own words, when an allocation fails
_OUT_OF_MEMORY = re.compile(r"failed to allocate memory|bad.?alloc|out of memory|cannot allocate memory", re.IGNORECASE)


@runtime_checkable
class KeptTensor(Protocol):
    """A tensor that stays in its engine's memory between two calls, such as a cache. Immutable."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def numpy(self) -> Array:
        """A copy for the host."""
        ...


Feed: TypeAlias = "Array | KeptTensor"


def host_array(feed: Feed) -> Array:
    """Values in the host's memory, for reading alone: an array is given back as it is."""
    return feed if isinstance(feed, np.ndarray) else feed.numpy()


@dataclass(frozen=True)
class Outputs:
    """What a stage gave: arrays of the host, and those the caller asked to keep in the engine."""

    arrays: Mapping[str, Array]
    kept: Mapping[str, KeptTensor] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]


class Compiled(enum.Enum):
    """What becomes of graphs that an engine compiles for this machine. Those of a GPU are always kept."""

    FORGOTTEN = "forgotten"  # for what is opened once, to be measured or compared
    KEPT = "kept"  # in the folder for caches, so that the next start reads them


class DecodeGraphs(enum.Enum):
    """Whether a GPU's decode steps are captured as CUDA graphs, one for each length that comes back."""

    MEASURED = "measured"  # as long as that is seen to save time where it runs
    ALWAYS = "always"
    NEVER = "never"


@dataclass(frozen=True)
class EngineOptions:
    """Options that every engine understands, or has no use for."""

    threads: int = 0  # of one stage; 0: one for each core
    compiled: Compiled = Compiled.FORGOTTEN

    def __post_init__(self) -> None:
        settle(self, THREADS)
        object.__setattr__(self, "decode_graphs", check_word("decode_graphs", DecodeGraphs, self.decode_graphs))

    decode_graphs: DecodeGraphs = DecodeGraphs.MEASURED


class EngineSession(Protocol):
    """What an engine's module implements."""

    @property
    def providers(self) -> tuple[str, ...]:
        """What does the work, the most important first; a name with CPU in it is the host's processor."""
        ...

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str]) -> Outputs: ...

    def close(self) -> None: ...


class EngineModule(Protocol):
    """The module of an engine."""

    def open_session(self, path: Path, spec: StageSpec, options: EngineOptions) -> EngineSession: ...


class Session:
    """One opened stage. `run` and `close` may be called from any thread at any time."""

    def __init__(
        self, spec: StageSpec, engine: EngineSession, *, queues: bool = False, at_once: AtOnce = _BY_CORES
    ) -> None:
        """`queues`: a call that brings nothing to the host comes back before its work is done; who measures its time
        has to measure until the next call that waits. `at_once`: what callers give it at most; longer calls work, too.
        """
        self.spec, self.queues, self.at_once = spec, queues, at_once
        self.providers = engine.providers  # what the stage really runs on; see `EngineSession`
        self._engine = engine
        self._lifetime = Lifetime(f"stage {spec.name}", engine.close)

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str] = ()) -> Outputs:
        """Run the stage on tensors by name; outputs named in `keep` are not copied to the host nor value-checked.

        Raises ContractError (names, types, shapes), StageValueError (NaN, infinity), StageMemoryError, EngineError,
        ClosedError (also in a forked child), CancelledError (where the engine can end a call half-way).
        """
        check_wanted()  # an engine that is told so before its call has begun may not hear it
        lengths = bind_axes(self.spec, feeds)
        try:
            with self._lifetime:
                outputs = self._engine.run(feeds, keep)
        except MgccError:
            raise
        except Exception as error:
            check_wanted()  # an engine that was told to stop says so in words of its own
            raise translate(error, self.spec.name, "run") from error
        check_tensors(self.spec.name, "output", self.spec.outputs, {**outputs.arrays, **outputs.kept}, lengths)
        for name, array in outputs.arrays.items():
            check_finite(self.spec.name, name, array)
        return outputs

    def close(self) -> None:
        """Refuse further calls, wait for those that run in other threads, and free; more than once is no error."""
        self._lifetime.end()


def open_session(name: str, path: Path, spec: StageSpec, options: EngineOptions) -> Session:
    """Open a stage's file with the engine called `name`; EngineError if there is no such engine here."""
    if name not in _ENGINES:
        raise EngineError(
            f"stage {spec.name} needs the engine {name!r}, this runtime has {', '.join(_ENGINES)}; "
            "upgrade mgcc-edge or rebuild the bundle for this target"
        )
    engine = _ENGINES[name]
    try:
        with working():
            module = cast(EngineModule, importlib.import_module(f"{__name__}.{engine.module}"))
            session = module.open_session(path, spec, options)
            return Session(spec, session, queues=engine.queues, at_once=engine.at_once)
    except MgccError:
        raise
    except ImportError as error:  # by the module itself, or by the library that it opens sessions with
        raise EngineError(
            f"stage {spec.name} needs the engine {name}, whose package {engine.package} cannot be imported ({error}); "
            f"{way_to_get(name, error)}"
        ) from None
    except Exception as error:
        raise translate(error, spec.name, "be opened") from error


def translate(error: Exception, stage: str, action: str) -> EngineError:
    """The error of ours for one of an engine's, its text cut to one line."""
    text = (str(error) or type(error).__name__).strip().splitlines()[0][:300]
    if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
        return StageMemoryError(
            f"stage {stage} ran out of memory ({text}); free memory, or use a bundle of lower precision"
        )
    return EngineError(f"stage {stage} cannot {action}: {text}; run `mgcc verify` to see whether the bundle is sound")
