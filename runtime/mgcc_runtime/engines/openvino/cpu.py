"""OpenVINO on the CPU: the fastest engine measured for graphs with Q/DQ pairs."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from mgcc_runtime.caches import writable_cache
from mgcc_runtime.cancelling import stopped_by
from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines import Array, Compiled, EngineOptions, Feed, Outputs
from mgcc_runtime.engines.host import HostTensor, readable
from mgcc_runtime.engines.openvino.steady_inputs import SteadyHalf, split
from mgcc_runtime.engines.unreported import unreported
from mgcc_runtime.errors import ContractError
from mgcc_runtime.files import native_path

with unreported():
    import openvino as ov


class Arithmetic(enum.Enum):
    """What OpenVINO computes in where a graph has no Q/DQ pairs; the values are its own names."""

    FP32 = "f32"
    BF16 = "bf16"


class OpenVinoSession:
    """One stage. A request object belongs to one call at a time, so calls from several threads queue.

    `steady`: the half of the stage that is computed once a request; None where all of it is at each call.
    """

    def __init__(self, compiled: Any, spec: StageSpec, steady: SteadyHalf | None = None) -> None:
        self._request = compiled.create_infer_request()
        self._steady = steady
        self._outputs = [t.name for t in spec.outputs]
        self._lock = Lock()

    @property
    def providers(self) -> tuple[str, ...]:
        return ("OpenVINO on the CPU",)  # the only device that sessions are opened on

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str]) -> Outputs:
        values = {name: _array(feed) for name, feed in feeds.items()}
        with self._lock:
            if self._steady is not None:
                values = self._steady.bind(self._request, values)
            with stopped_by(self._request.cancel):
                self._request.start_async(values, share_inputs=True)
                self._request.wait()
            # the request's own buffers are written again by the next call
            found = {name: np.array(self._request.get_tensor(name).data) for name in self._outputs}
        kept = {name: HostTensor(found[name]) for name in keep}
        return Outputs({name: array for name, array in found.items() if name not in kept}, kept)

    def close(self) -> None:
        del self._request, self._steady


def _array(feed: Feed) -> Array:
    return np.ascontiguousarray(readable(feed))


def open_session(
    path: Path, spec: StageSpec, options: EngineOptions, arithmetic: Arithmetic = Arithmetic.FP32
) -> OpenVinoSession:
    """Open an ONNX file on the CPU; ContractError if its inputs and outputs are not the stage's."""
    core = ov.Core()
    # it is by content, settings and OpenVINO's own version. Of the story's UNet compiling took 4.4 s and reading 1.1
    # (two busy cores)
    if options.compiled is Compiled.KEPT and (folder := writable_cache("openvino")) is not None:
        core.set_property({"CACHE_DIR": native_path(folder)})
    model = core.read_model(path)
    for kind, ports, tensors in (("input", model.inputs, spec.inputs), ("output", model.outputs, spec.outputs)):
        found, expected = {n for port in ports for n in port.names}, [t.name for t in tensors]
        if len(ports) != len(expected) or not found >= set(expected):
            raise ContractError(
                f"{path} has the {kind}s {', '.join(sorted(found))}, the stage {spec.name} has {', '.join(expected)}; "
                "rebuild the bundle"
            )
    # left to itself OpenVINO runs fp32 graphs in bf16 where the CPU has it: parity would be lost without a word
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": arithmetic.value}
    if options.threads:
        settings["INFERENCE_NUM_THREADS"] = options.threads

    def compiled(graph: Any) -> Any:
        return core.compile_model(graph, "CPU", settings)

    if (halves := split(model, spec.steady)) is None:
        return OpenVinoSession(compiled(model), spec)
    return OpenVinoSession(compiled(halves.each), spec, SteadyHalf(compiled(halves.ahead), halves))
