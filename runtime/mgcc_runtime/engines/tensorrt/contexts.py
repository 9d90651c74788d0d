"""An execution context of TensorRT, and what it was told last: it is told again only what has changed.

To tell a context a shape or an address, the same one too, may invalidate a CUDA graph that was captured from it, and
costs a call of the library for each tensor.
"""

from __future__ import annotations

from typing import Any

from mgcc_runtime.engines.tensorrt.record import Shape
from mgcc_runtime.errors import EngineError


class Context:
    """One execution context. Calls are made under the GPU's lock, with its device in use."""

    def __init__(self, context: Any, stage: str, rebuild: str) -> None:
        self._context, self._stage, self._rebuild = context, stage, rebuild
        self._shapes: dict[str, Shape] = {}
        self._results: dict[str, Shape] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = (0, 0)
        #: Whether it has run as it is now: the first run after a change settles what no graph may contain.
        self.settled = False

    def set_input(self, name: str, address: int, shape: Shape) -> None:
        """Where an input lies and what shape it has; EngineError if the engine was not built for that."""
        if self._shapes.get(name) != shape:
            self.settled = False
            self._results.clear()
            if not self._context.set_input_shape(name, shape):
                raise self._refusal(name, shape)
            self._shapes[name] = shape
        self.set_address(name, address)

    def set_address(self, name: str, address: int) -> None:
        """Where a tensor lies."""
        if self._addresses.get(name) == address:
            return
        self.settled = False
        if not self._context.set_tensor_address(name, address):
            raise self._refusal(name, self._shapes.get(name))
        self._addresses[name] = address

    def set_scratch(self, address: int, size: int) -> None:
        """The memory that the engine works in."""
        if self._scratch != (address, size):
            self.settled = False
            self._context.set_device_memory(address, size)
            self._scratch = (address, size)

    def shape_of(self, name: str) -> Shape:
        """Shape of an output, with the inputs' shapes as they are now."""
        if name not in self._results:
            self._results[name] = tuple(self._context.get_tensor_shape(name))
        return self._results[name]

    def enqueue(self, stream: int) -> None:
        """Queue its work; EngineError if it cannot be started."""
        if not self._context.execute_async_v3(stream):
            raise EngineError(
                f"stage {self._stage} could not be started on the GPU; start this program again, and run `mgcc verify` "
                "if it happens again"
            )
        self.settled = True

    def capturable(self, stream: int) -> bool:
        """What the library says of capturing its work; of a release that has `Feature.CAPTURE_QUESTION`."""
        return bool(self._context.is_stream_capturable(stream))

    def _refusal(self, name: str, shape: Shape | None) -> EngineError:
        return EngineError(
            f"stage {self._stage} refuses {name} of shape {shape}; run `mgcc verify`, and rebuild the engine with "
            f"`{self._rebuild}` if it fails"
        )
