"""What a graph computes from steady inputs alone, as a graph of its own: once a request, not at each of its steps.

Of the story's UNet that is the keys and values of the conditioning and the map of the boxes. Each half is compiled by
itself, so a tensor that is quantised on its way into the other half is handed over before that: OpenVINO has integer
kernels only for what it sees beside its quantisation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mgcc_runtime.engines import Array
from mgcc_runtime.engines.unreported import unreported

with unreported():
    import openvino as ov
    from openvino import opset13

#: Between a quantisation and what computes with it.
_DEQUANTISE = ("Convert", "Subtract", "Multiply")
#: Requests whose steady half is kept: so many may take their steps in turns.
_REQUESTS = 4


@dataclass(frozen=True)
class Halves:
    """Both graphs. Outputs of `ahead` are inputs of `each` in the order of `links`, by these names."""

    ahead: Any  # ov.Model from steady inputs
    each: Any  # ov.Model from the other inputs, from `links`, and from steady inputs that it takes as they are
    links: tuple[str, ...]


def split(model: Any, steady: Iterable[str]) -> Halves | None:
    """Both halves of a model whose inputs called `steady` change seldom; None where they feed nothing by themselves.

    The second half is made of the model itself, which is of no other use then.
    """
    names = frozenset(steady)
    # most stages have none, and looking through a graph takes a tenth of a second of a start
    cuts = _cuts(model, names) if names else []
    if not cuts:
        return None
    given = [p for p in model.get_parameters() if _name(p) in names]
    needed = _parameters(value.get_node() for value, _ in cuts)
    # cloned, or it would hold the very operations that the other half is about to lose
    ahead = ov.Model([value for value, _ in cuts], [p for p in given if p.get_name() in needed], "ahead").clone()
    links = tuple(f"steady.{i}" for i in range(len(cuts)))
    linked = []
    for link, (value, takers) in zip(links, cuts, strict=True):
        linked.append(opset13.parameter(value.get_partial_shape(), value.get_element_type(), name=link))
        linked[-1].output(0).get_tensor().set_names({link})
        for taker in takers:
            taker.replace_source_output(linked[-1].output(0))
    results = model.get_results()
    needed = _parameters(results)
    kept = [p for p in model.get_parameters() if p.get_name() in needed]
    return Halves(ahead, ov.Model(results, kept + linked, "each"), links)


@dataclass(frozen=True)
class _Request:
    """What the steady half is given, and what it gave."""

    given: tuple[Array, ...]
    found: tuple[Any, ...]  # ov.Tensor


class SteadyHalf:
    """The compiled steady half, and what it gave of late. It has no lock of its own: one call at a time."""

    def __init__(self, compiled: Any, halves: Halves) -> None:
        self._request = compiled.create_infer_request()
        self._outputs = compiled.outputs
        self._inputs = [str(port.get_any_name()) for port in compiled.inputs]
        self._each = frozenset(_name(p) for p in halves.each.get_parameters())
        self._links = halves.links
        self._kept: deque[_Request] = deque(maxlen=_REQUESTS)
        self._bound: _Request | None = None

    def bind(self, request: Any, values: Mapping[str, Array]) -> dict[str, Array]:
        """Give `request`, of the other half, what belongs to the steady ones of `values`; returns those it needs still.

        They are compared by value, so that nobody has to say when a request begins.
        """
        given = [values[name] for name in self._inputs]
        known = next((r for r in self._kept if all(map(np.array_equal, r.given, given))), None)
        if known is None:
            self._request.infer(dict(zip(self._inputs, given, strict=True)), share_inputs=True)
            found = tuple(ov.Tensor(self._request.get_tensor(port).data) for port in self._outputs)
            known = _Request(tuple(array.copy() for array in given), found)
            self._kept.appendleft(known)
        if known is not self._bound:
            for link, tensor in zip(self._links, known.found, strict=True):
                request.set_tensor(link, tensor)
            self._bound = known
        return {name: value for name, value in values.items() if name in self._each}


def _cuts(model: Any, steady: frozenset[str]) -> list[tuple[Any, list[Any]]]:
    """Where the steady half ends: each output that goes over, with the inputs that take it; in the graph's order."""
    operations = model.get_ordered_ops()
    moving, fixed = _moving(operations, steady)
    cuts: dict[tuple[str, int], tuple[Any, list[Any]]] = {}
    for operation in operations:
        if operation.get_name() not in moving:
            continue
        for entry in operation.inputs():
            taker = _before_quantisation(entry, fixed)
            value = taker.get_source_output()
            node = value.get_node()
            if (name := node.get_name()) in moving or name in fixed or node.get_type_name() == "Parameter":
                continue
            _, takers = cuts.setdefault((name, value.get_index()), (value, []))
            takers.append(taker)
    return list(cuts.values())


def _moving(operations: Iterable[Any], steady: frozenset[str]) -> tuple[set[str], set[str]]:
    """Names of the operations that depend on other than steady inputs, and of those that depend on no input."""
    moving, fixed = set[str](), set[str]()
    for operation in operations:
        sources = [i.get_source_output().get_node().get_name() for i in operation.inputs()]
        if operation.get_type_name() == "Parameter":
            if _name(operation) not in steady:
                moving.add(operation.get_name())
        elif any(source in moving for source in sources):
            moving.add(operation.get_name())
        elif all(source in fixed for source in sources):
            fixed.add(operation.get_name())
    return moving, fixed


def _before_quantisation(taker: Any, fixed: set[str]) -> Any:
    """The input of the quantisation that `taker` gets its value from by way of constants alone; else `taker`."""
    above = taker
    while True:
        node = above.get_source_output().get_node()
        varying = [i for i in node.inputs() if i.get_source_output().get_node().get_name() not in fixed]
        if len(varying) != 1:
            return taker
        if node.get_type_name() == "FakeQuantize":
            return varying[0]
        if node.get_type_name() not in _DEQUANTISE:
            return taker
        above = varying[0]


def _name(parameter: Any) -> str:
    """What a graph's input is called; `get_name` of an operation is OpenVINO's own, and unique."""
    return str(parameter.output(0).get_any_name())


def _parameters(ends: Iterable[Any]) -> set[str]:
    """Of the operations that `ends` depend on, the inputs' own names."""
    waiting, seen, found = list(ends), set[str](), set[str]()
    while waiting:
        node = waiting.pop()
        if (name := node.get_name()) in seen:
            continue
        seen.add(name)
        if node.get_type_name() == "Parameter":
            found.add(name)
        waiting += [i.get_source_output().get_node() for i in node.inputs()]
    return found
