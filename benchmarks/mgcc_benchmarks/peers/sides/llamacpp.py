"""llama.cpp, built on this machine with its defaults, on the file that our weights come from.

It is called through llama-cpp-python's plain bindings of the C functions, whose Python class copies unneeded logits.
Only the last position's logits are computed, as in our graphs.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mgcc_benchmarks.peers.sides.llm import DecodeSide, Logits, PrefillSide
from mgcc_benchmarks.peers.worker import WorkerSpec

_CONTEXT = 1024


class LlamaCpp:
    """One sequence of llama.cpp's memory. The model stays mapped until the process ends."""

    def __init__(self, spec: WorkerSpec) -> None:
        self.lib: Any = importlib.import_module("llama_cpp")  # in an environment of its own, without types
        lib = self.lib
        lib.llama_backend_init()
        self.model = lib.llama_model_load_from_file(spec.files["gguf"].encode(), lib.llama_model_default_params())
        if not self.model:
            raise ValueError(f"{spec.files['gguf']} cannot be loaded by llama.cpp; give another GGUF file")
        settings = lib.llama_context_default_params()
        settings.n_ctx = settings.n_batch = settings.n_ubatch = _CONTEXT  # a prompt in one pass
        settings.n_threads = settings.n_threads_batch = spec.threads
        self.context = lib.llama_init_from_model(self.model, settings)
        self.memory = lib.llama_get_memory(self.context)
        self.vocabulary: int = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))
        system = lib.llama_print_system_info().decode()
        self.versions = {"llama-cpp-python": lib.__version__, "llama.cpp features": system.strip()}
        self.length = 0

    def _read(self, ids: list[int]) -> Logits:
        tokens = (self.lib.llama_token * len(ids))(*ids)
        code = self.lib.llama_decode(self.context, self.lib.llama_batch_get_one(tokens, len(ids)))
        if code:
            raise ValueError(f"llama_decode gave {code} for {len(ids)} tokens, expected 0; shorten the prompt")
        logits = self.lib.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(logits, shape=(self.vocabulary,))

    def prefill(self, ids: NDArray[np.int64]) -> Logits:
        self.lib.llama_memory_clear(self.memory, True)
        self.length = len(ids)
        return self._read(ids.tolist())

    def rewind(self) -> None:
        self.lib.llama_memory_seq_rm(self.memory, 0, self.length, -1)

    def step(self, token: int) -> Logits:
        return self._read([token])


class LlamaCppPrefill(PrefillSide):
    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, LlamaCpp(spec))


class LlamaCppDecode(DecodeSide):
    def __init__(self, spec: WorkerSpec) -> None:
        super().__init__(spec, LlamaCpp(spec))
