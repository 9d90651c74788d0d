"""OpenVINO as its users run it: the plain fp32 graphs, the latency hint, a stateful language model.

OpenVINO's own tools make the cache a state of the model (`optimum-intel` does by default), which saves two copies
of the whole cache at every token; the same is done here. fp32 is requested, as from every exact peer. By default
OpenVINO computes in bf16 on a CPU that has it: the side `openvino-default` sets only the number of threads, which is
the same for all sides.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino._offline_transformations import apply_make_stateful_transformation

from mgcc_benchmarks.peers.sides.llm import DecodeSide, Logits, PrefillSide
from mgcc_benchmarks.peers.worker import Outputs, WorkerSpec
from mgcc_runtime.names import EMBEDDINGS, PRESENT_PREFIX, graph_file

_FP32 = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}


def _compile(model: Any, spec: WorkerSpec) -> tuple[Any, dict[str, str]]:
    """A request, and OpenVINO's version with the arithmetic that it computes in."""
    settings = {} if spec.side.startswith("openvino-default.") else _FP32
    compiled = ov.Core().compile_model(model, "CPU", {**settings, "INFERENCE_NUM_THREADS": spec.threads})
    arithmetic = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    return compiled.create_infer_request(), {"openvino": ov.__version__, "arithmetic": arithmetic}


def _read_graph(spec: WorkerSpec, name: str) -> Any:
    return ov.Core().read_model(Path(spec.files["graphs"]) / graph_file(name))


class OpenVinoUnet:
    """One denoising step: numpy in, numpy out."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.request, self.versions = _compile(_read_graph(spec, "unet"), spec)
        self.feeds = spec.arrays("unet")

    def _predict(self) -> NDArray[Any]:
        self.request.infer(self.feeds, share_inputs=True)
        return np.array(self.request.get_tensor("prediction").data)

    def outputs(self) -> Outputs:
        return {"prediction": self._predict()}

    def run_ms(self) -> float:
        start_s = time.perf_counter()
        self._predict()
        return (time.perf_counter() - start_s) * 1e3


class OpenVinoLlm:
    """The language model with its cache as OpenVINO's state."""

    def __init__(self, spec: WorkerSpec) -> None:
        model = _read_graph(spec, "llm")
        past = [port.any_name for port in model.inputs if port.any_name != "inputs_embeds"]
        present = [name for port in model.outputs for name in port.names if name.startswith(PRESENT_PREFIX)]
        apply_make_stateful_transformation(model, dict(zip(past, present, strict=True)))
        self.request, self.versions = _compile(model, spec)
        self.table = np.load(Path(spec.files["graphs"]) / EMBEDDINGS, mmap_mode="r")
        self.prompt: NDArray[np.int64] = np.zeros(0, np.int64)

    def _read(self, ids: NDArray[np.int64]) -> Logits:
        self.request.infer({"inputs_embeds": np.ascontiguousarray(self.table[ids][None])}, share_inputs=True)
        logits: Logits = np.array(self.request.get_tensor("logits").data[0, 0])
        return logits

    def prefill(self, ids: NDArray[np.int64]) -> Logits:
        self.prompt = ids
        self.request.reset_state()
        return self._read(ids)

    def rewind(self) -> None:
        self.prefill(self.prompt)

    def step(self, token: int) -> Logits:
        return self._read(np.array([token]))


class OpenVinoPrefill(PrefillSide):
    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, OpenVinoLlm(spec))


class OpenVinoDecode(DecodeSide):
    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, OpenVinoLlm(spec))
