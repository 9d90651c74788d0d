"""A decoder's attention in two forms, through TensorRT's network interface: with a cache that grows by a copy at each
step, as the exported language model has it, and with one that is written in place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mgcc_runtime.engines import Array


@dataclass(frozen=True)
class Decoder:
    """Sizes of the network, and its weights by a seed."""

    layers: int
    heads: int
    head_dim: int
    capacity: int  # positions
    seed: int = 0

    @property
    def width(self) -> int:
        return self.heads * self.head_dim

    @property
    def caches(self) -> list[str]:
        return [f"{part}.{i}" for i in range(self.layers) for part in ("key", "value")]

    def weights(self) -> dict[str, Array]:
        """Query, key, value and output projections of each layer, fp16 (1, width, width)."""
        rng, shape = np.random.default_rng(self.seed), (1, self.width, self.width)
        names = [f"{part}.{i}" for i in range(self.layers) for part in ("wq", "wk", "wv", "wo")]
        return {name: (rng.normal(0, 1, shape) / self.width**0.5).astype(np.float16) for name in names}


def build(trt: Any, decoder: Decoder, *, in_place: bool, logger: Any) -> bytes:
    """An engine of one step: `x` (1, 1, width) and the caches in, `y` and the caches out, all fp16.

    In place: caches (1, heads, capacity, head_dim) whose outputs lie where their inputs do, `index` int32 (1,), where
    the new position goes, and `mask` (1, 1, 1, capacity), what is added to the scores. Else: caches of P positions.
    """
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    made, weights = _Network(trt, network, decoder), decoder.weights()
    x = network.add_input("x", trt.float16, (1, 1, decoder.width))
    length = decoder.capacity if in_place else -1
    shape = (1, decoder.heads, length, decoder.head_dim)
    caches = {name: network.add_input(name, trt.float16, shape) for name in decoder.caches}
    index = mask = None
    if in_place:
        index = network.add_input("index", trt.int32, (1,))
        mask = network.add_input("mask", trt.float16, (1, 1, 1, decoder.capacity))
    for i in range(decoder.layers):
        query, key, value = (made.split(made.project(x, weights[f"{w}.{i}"])) for w in ("wq", "wk", "wv"))
        keys = made.extend(caches[f"key.{i}"], key, index)
        values = made.extend(caches[f"value.{i}"], value, index)
        found = made.attend(query, keys, values, mask)
        x = made.add(x, made.project(made.join(found), weights[f"wo.{i}"]))
        for name, tensor in ((f"key.{i}", keys), (f"value.{i}", values)):
            tensor.name = f"present.{name}"
            network.mark_output(tensor)
    x.name = "y"
    network.mark_output(x)
    config = builder.create_builder_config()
    if trt.__name__ == "tensorrt_rtx":
        config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)  # or it may allocate while it is captured
    if not in_place:
        profile = builder.create_optimization_profile()
        ends = [(1, decoder.heads, n, decoder.head_dim) for n in (1, decoder.capacity // 2, decoder.capacity - 1)]
        for name in decoder.caches:
            profile.set_shape(name, *ends)
        config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, "the builder refuses the network; its log says why"
    return bytes(plan)


class _Network:
    """The layers that the decoder is made of."""

    def __init__(self, trt: Any, network: Any, decoder: Decoder) -> None:
        self._trt, self._network, self._of = trt, network, decoder
        self._constants: list[Array] = []  # read when the engine is built

    def constant(self, value: Array) -> Any:
        self._constants.append(np.ascontiguousarray(value))
        return self._network.add_constant(value.shape, self._constants[-1]).get_output(0)

    def project(self, x: Any, weights: Array) -> Any:
        plain = self._trt.MatrixOperation.NONE
        return self._network.add_matrix_multiply(x, plain, self.constant(weights), plain).get_output(0)

    def add(self, a: Any, b: Any) -> Any:
        return self._network.add_elementwise(a, b, self._trt.ElementWiseOperation.SUM).get_output(0)

    def split(self, x: Any) -> Any:
        """(1, 1, width) -> (1, heads, 1, head_dim)"""
        return self._reshape(x, (1, self._of.heads, 1, self._of.head_dim))

    def join(self, x: Any) -> Any:
        """(1, heads, 1, head_dim) -> (1, 1, width)"""
        return self._reshape(x, (1, 1, self._of.width))

    def extend(self, cache: Any, new: Any, index: Any) -> Any:
        if index is not None:
            layer = self._network.add_kv_cache_update(cache, new, index, self._trt.KVCacheMode.LINEAR)
        else:
            layer = self._network.add_concatenation([cache, new])
            layer.axis = 2
        return layer.get_output(0)

    def attend(self, query: Any, keys: Any, values: Any, mask: Any) -> Any:
        """Softmax of the scaled scores, `mask` added to them, times the values."""
        plain, turned = self._trt.MatrixOperation.NONE, self._trt.MatrixOperation.TRANSPOSE
        scores = self._network.add_matrix_multiply(query, plain, keys, turned).get_output(0)
        scale = self.constant(np.full((1, 1, 1, 1), self._of.head_dim**-0.5, np.float16))
        scores = self._network.add_elementwise(scores, scale, self._trt.ElementWiseOperation.PROD).get_output(0)
        if mask is not None:
            scores = self.add(scores, mask)
        softmax = self._network.add_softmax(scores)
        softmax.axes = 1 << 3
        return self._network.add_matrix_multiply(softmax.get_output(0), plain, values, plain).get_output(0)

    def _reshape(self, x: Any, shape: tuple[int, ...]) -> Any:
        layer = self._network.add_shuffle(x)
        layer.reshape_dims = shape
        return layer.get_output(0)
