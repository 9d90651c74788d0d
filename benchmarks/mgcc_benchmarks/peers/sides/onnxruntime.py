"""ONNX Runtime as its users run it: the plain fp32 graphs that torch.onnx.export wrote, default session options."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from mgcc_benchmarks.peers.sides.llm import CachedLlm, DecodeSide, Logits, PrefillSide
from mgcc_benchmarks.peers.worker import Outputs, WorkerSpec
from mgcc_runtime.names import EMBEDDINGS, graph_file

_VERSIONS = {"onnxruntime": ort.__version__}


def open_graph(spec: WorkerSpec, name: str) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = spec.threads
    return ort.InferenceSession(
        str(Path(spec.files["graphs"]) / graph_file(name)), options, providers=["CPUExecutionProvider"]
    )


class OrtUnet:
    """One denoising step: numpy in, numpy out."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.session, self.feeds, self.versions = open_graph(spec, "unet"), spec.arrays("unet"), _VERSIONS

    def outputs(self) -> Outputs:
        return {"prediction": self.session.run(["prediction"], self.feeds)[0]}

    def run_ms(self) -> float:
        start_s = time.perf_counter()
        self.session.run(["prediction"], self.feeds)
        return (time.perf_counter() - start_s) * 1e3


class OrtLlm(CachedLlm[list[ort.OrtValue]]):
    """The cache stays in ONNX Runtime's own values, as its documentation advises; numpy would copy it each step."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.session, self.versions = open_graph(spec, "llm"), _VERSIONS
        self.table = np.load(Path(spec.files["graphs"]) / EMBEDDINGS, mmap_mode="r")
        inputs = self.session.get_inputs()
        self.past = [i.name for i in inputs if i.name != "inputs_embeds"]
        self.outputs = [o.name for o in self.session.get_outputs()]
        heads, width = inputs[1].shape[1], inputs[1].shape[3]
        nothing = ort.OrtValue.ortvalue_from_numpy(np.zeros((1, heads, 0, width), np.float32))
        super().__init__([nothing] * len(self.past))

    def read(self, ids: NDArray[np.int64], cache: list[ort.OrtValue]) -> Logits:
        embeddings = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(self.table[ids][None]))
        feeds = {"inputs_embeds": embeddings, **dict(zip(self.past, cache, strict=True))}
        logits, _, *self.now = self.session.run_with_ort_values(self.outputs, feeds)
        found: Logits = logits.numpy()[0, 0]
        return found


class OrtPrefill(PrefillSide):
    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, OrtLlm(spec))


class OrtDecode(DecodeSide):
    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, OrtLlm(spec))
