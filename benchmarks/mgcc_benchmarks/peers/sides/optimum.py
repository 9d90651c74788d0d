"""optimum-onnx: its own export of the same language model, run by its own class. Lives in its own environment."""

from __future__ import annotations

import copy
import importlib
import importlib.metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgcc_benchmarks.peers.sides.llm import DecodeSide, Logits, PrefillSide
from mgcc_benchmarks.peers.worker import WorkerSpec


class OptimumLlm:
    """`ORTModelForCausalLM` with the cache it returns; its forward pass alone, without `generate` around it."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.torch: Any = importlib.import_module("torch")
        optimum: Any = importlib.import_module("optimum.onnxruntime")
        ort: Any = importlib.import_module("onnxruntime")
        self.torch.set_num_threads(spec.threads)
        options = ort.SessionOptions()
        options.intra_op_num_threads = spec.threads
        self.model = optimum.ORTModelForCausalLM.from_pretrained(spec.files["model"], session_options=options)
        names = ("optimum-onnx", "onnxruntime", "transformers", "torch")
        self.versions = {name: importlib.metadata.version(name) for name in names}
        self.start: Any = None
        self.now: Any = None
        self.length = self.prompt_length = 0

    def _read(self, ids: NDArray[np.int64], past: Any) -> Logits:
        self.length += len(ids)
        with self.torch.inference_mode():
            found = self.model(
                input_ids=self.torch.from_numpy(ids)[None],
                attention_mask=self.torch.ones((1, self.length), dtype=self.torch.int64),
                past_key_values=past,
                use_cache=True,
            )
        self.now = found.past_key_values
        logits: Logits = found.logits[0, -1].numpy()
        return logits

    def prefill(self, ids: NDArray[np.int64]) -> Logits:
        self.length = 0
        logits = self._read(ids, None)
        self.start, self.prompt_length = self.now, len(ids)
        return logits

    def rewind(self) -> None:
        # a pass may lengthen its input cache; without a copy a second round would continue from the first's end
        self.now, self.length = copy.deepcopy(self.start), self.prompt_length

    def step(self, token: int) -> Logits:
        return self._read(np.array([token], np.int64), self.now)


class OptimumPrefill(PrefillSide):
    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, OptimumLlm(spec))


class OptimumDecode(DecodeSide):
    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, OptimumLlm(spec))
