"""ONNX Runtime on the CPU, for a language model's graph that writes its cache in place (see `shared_cache`).

Callers feed and get the contract's tensors, as with every engine: a cache that another graph or engine made is copied
into a buffer once, and cache outputs that are not kept are copied out.

A long prompt is read in pieces, which cost no copy here: attention computes the scores of all new positions against
all, and the upper half of them is for nothing. Shorter pieces save more of that and lose it in the smaller products.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from mgcc_runtime.contract import PAST_LENGTH, StageSpec
from mgcc_runtime.engines import Feed, Outputs, host_array
from mgcc_runtime.engines.onnxruntime.session import OrtSession, stoppable
from mgcc_runtime.engines.onnxruntime.shared_cache import SharedTensor, View, extended
from mgcc_runtime.errors import ContractError
from mgcc_runtime.names import PAST_PREFIX, PRESENT_PREFIX

PIECE = 200  # the most positions of one run


class InPlaceSession(OrtSession):
    """One `llm` stage whose past and present are the same memory."""

    def __init__(self, session: ort.InferenceSession, spec: StageSpec, path: Path) -> None:
        super().__init__(session, spec)
        self._stage = spec.name
        self._past = [t.name for t in spec.inputs if t.name.startswith(PAST_PREFIX)]
        self._present = [t.name for t in spec.outputs if t.name.startswith(PRESENT_PREFIX)]
        self._plain_inputs = [t.name for t in spec.inputs if t.name not in set(self._past)]
        outputs = [t for t in spec.outputs if t.name not in set(self._present)]
        self._plain_outputs = [t.name for t in outputs]
        self._by_position = {t.name: t.shape.index("S") for t in outputs if "S" in t.shape}  # name -> axis
        self._shape = _buffer_shape(session, self._past, path)

    def run(self, feeds: Mapping[str, Feed], keep: Collection[str]) -> Outputs:
        past = {name: feeds[name] for name in self._past}
        before, positions = past[self._past[0]].shape[2], feeds["inputs_embeds"].shape[1]
        view = extended(self._stage, past, self._shape, positions)
        arrays = self._read(view, before, {name: feeds[name] for name in self._plain_inputs})
        kept: dict[str, SharedTensor] = {}
        for past_name, name in zip(self._past, self._present, strict=True):
            tensor = SharedTensor(view, past_name)
            if name in keep:
                kept[name] = tensor
            else:
                arrays[name] = tensor.numpy()
        return Outputs(arrays, kept)

    def _read(self, view: View, before: int, feeds: Mapping[str, Feed]) -> dict[str, Any]:
        """The outputs that are no cache, of the positions of all pieces, or of the last piece."""
        embeddings = feeds["inputs_embeds"]
        pieces = -(-embeddings.shape[1] // PIECE)
        if pieces <= 1:
            return dict(zip(self._plain_outputs, self._run_on(view, before, feeds), strict=True))
        runs = []
        for piece in np.array_split(host_array(embeddings), pieces, axis=1):
            runs.append(self._run_on(view, before, {**feeds, "inputs_embeds": piece}))
            before += piece.shape[1]
        found = dict(zip(self._plain_outputs, zip(*runs, strict=True), strict=True))
        return {
            name: np.concatenate(parts, self._by_position[name]) if name in self._by_position else parts[-1]
            for name, parts in found.items()
        }

    def _run_on(self, view: View, before: int, feeds: Mapping[str, Feed]) -> list[Any]:
        """Run in the view's buffer, which holds `before` positions; the outputs that are no cache."""
        bindings = view.buffer.bindings
        binding = bindings.get(self)
        if binding is None:
            binding = bindings[self] = self._bound(view)
        for name, feed in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(host_array(feed)))
        binding.bind_cpu_input(PAST_LENGTH, np.array([before], np.int64))
        for name in self._plain_outputs:
            binding.bind_output(name, "cpu")  # again each time, or the last call's memory would be written over
        with stoppable() as run:
            self._session.run_with_iobinding(binding, run)
        results = binding.get_outputs_as_ortvaluevector()  # in the order of binding: the cache comes first
        first = len(self._present)
        return [results[first + i].numpy() for i in range(len(self._plain_outputs))]

    def _bound(self, view: View) -> ort.IOBinding:
        """A binding of the buffer as past and as present."""
        binding = self._session.io_binding()
        for past, present in zip(self._past, self._present, strict=True):
            value = view.buffer.values[past]
            binding.bind_ortvalue_input(past, value)
            binding.bind_ortvalue_output(present, value)
        return binding


def _buffer_shape(session: ort.InferenceSession, names: list[str], path: Path) -> tuple[int, ...]:
    """(1, H_kv, C, d) as the graph declares it."""
    shapes = {tuple(node.shape) for node in session.get_inputs() if node.name in set(names)}
    (shape,) = shapes if len(shapes) == 1 else ((),)
    if not shape or not all(isinstance(length, int) for length in shape):
        raise ContractError(
            f"{path} takes a cache that is written in place, but does not say of what capacity; rebuild the bundle"
        )
    return shape
