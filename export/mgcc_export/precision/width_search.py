"""Which weights have to keep more bits: what the rounding of each costs the outputs, found by running the stage.

Rounding to nearest spreads its error over all layers, but a few of them carry most of it: where a language model
makes its attention sink (one position, activations a thousand times the rest), one weight in two hundred is to blame.
Giving those few the next width costs a few per cent of the size; giving up on the whole stage would double it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from mgcc_calibration.graphs.edit import drop_unused_weights
from mgcc_calibration.graphs.storage import load_graph, save_graph
from mgcc_export.graphs.reference import ReferenceCase
from mgcc_export.precision.emulate_fp16 import write_emulated
from mgcc_export.precision.weight_widths import Bits, QuantisableWeight, find_candidates
from mgcc_runtime.bundle.manifest import Tolerance
from mgcc_runtime.contract import StageSpec
from mgcc_runtime.engines.onnxruntime.cpu import cpu_settings
from mgcc_runtime.measure.similarity import cosine, relative_l2

#: What is aimed at, as a share of the tolerance: the cases are a sample, and a GPU sums in another order.
AIM = 0.9
#: Share of the candidates' bytes that may keep more bits; beyond it the stage is better off in the next precision.
MOST_KEPT = 0.35
#: Each candidate's rounding is a run of the stage with all weights fed: above this, minutes become hours.
SEARCHED_BYTES = 800_000_000
_ROUNDS = 8
_TIGHTER = 0.85  # costs do not quite add up: a set that misses the aim in a run is chosen anew for a lower one
#: Candidates are ranked on the first so many new positions of a case: hundreds of runs on all of them take hours.
_RANKED_POSITIONS = 16

Outputs = Mapping[str, NDArray[Any]]
#: (place of the case, output) -> error as a share of the tolerance.
Errors = dict[tuple[int, str], float]


@dataclass(frozen=True)
class Search:
    """Weights to store in the next width (none: no set was found), and how many there were to choose from."""

    wider: tuple[str, ...]
    candidates: int
    share: float  # of the candidates' bytes


def search_wider(
    half: Path, bits: Bits, spec: StageSpec, cases: Sequence[ReferenceCase], tolerance: Tolerance,
    half_boundary: Collection[str] = (),
) -> Search:  # fmt: skip
    """The weights of the fp16 graph `half` to keep wider so that, with all others in `bits`, every case holds.

    `half_boundary` names the inputs and outputs that are fp16. The same graph and cases give the same set.
    """
    held_to = _HeldTo(spec, cases, tolerance, half_boundary)
    with tempfile.TemporaryDirectory() as folder:
        probe = _Probe(half, bits, held_to, Path(folder))
        if probe.bytes > SEARCHED_BYTES:
            return Search((), len(probe.candidates), 0.0)
        return _search(probe, cases)


def _search(probe: _Probe, cases: Sequence[ReferenceCase]) -> Search:
    every = frozenset(probe.candidates)
    rounded = {place: probe.errors(place, every) for place in range(len(cases))}
    ranked: dict[int, _Ranking] = {}
    aim = AIM
    wider: tuple[str, ...] = ()
    for _ in range(_ROUNDS):
        missing = [place for place, errors in rounded.items() if max(errors.values()) > AIM]
        if not missing:
            return Search(wider, len(every), probe.share(wider))
        fresh = [place for place in missing if place not in ranked]
        if fresh:  # the cheapest: often what it asks for is enough for the others, or too much already
            place = min(fresh, key=lambda one: cases[one].lengths.get("S", 1))
            ranked[place] = _Ranking.of(probe, place)
        else:
            aim *= _TIGHTER
        wider = _choose(probe, ranked.values(), aim)
        if probe.share(wider) > MOST_KEPT:
            break
        rounded = {place: probe.errors(place, every - set(wider)) for place in range(len(cases))}
    return Search((), len(every), 0.0)


@dataclass(frozen=True)
class _Ranking:
    """Of one case: the error with all weights wide, with none; on its beginning, what each adds if it alone is not."""

    base: Errors
    whole: Errors
    alone: Mapping[str, Errors]

    @classmethod
    def of(cls, probe: _Probe, place: int) -> _Ranking:
        start = probe.beginning(place)
        plain = probe.run(start, frozenset())
        alone = {name: probe.errors(place, frozenset({name}), (start, plain)) for name in probe.candidates}
        return cls(probe.errors(place, frozenset()), probe.errors(place, frozenset(probe.candidates)), alone)

    def goal(self, tensor: tuple[int, str], aim: float) -> float:
        """What the sum of the candidates' squared costs may be, since errors add up as squares, nearly."""
        summed = sum(errors[tensor] ** 2 for errors in self.alone.values())
        added = self.whole[tensor] ** 2 - self.base[tensor] ** 2
        return (aim**2 - self.base[tensor] ** 2) * summed / added if added > 0 else math.inf


def _choose(probe: _Probe, rankings: Collection[_Ranking], aim: float) -> tuple[str, ...]:
    """Candidates to keep, those first that lower what is over the goal by most for their bytes."""
    costs = {
        name: {tensor: cost**2 for r in rankings for tensor, cost in r.alone[name].items()} for name in probe.candidates
    }
    goals = {tensor: r.goal(tensor, aim) for r in rankings for tensor in r.whole}
    left = {tensor: sum(cost[tensor] for cost in costs.values()) for tensor in goals}
    chosen: list[str] = []
    while over := [tensor for tensor, total in left.items() if total > goals[tensor]]:
        waiting = [name for name in costs if name not in chosen]
        if not waiting:
            break
        best = max(waiting, key=lambda name: sum(costs[name][t] for t in over) / probe.candidates[name].values.nbytes)
        chosen.append(best)
        for tensor in left:
            left[tensor] -= costs[best][tensor]
    return tuple(name for name in costs if name in chosen)  # in the graph's order


@dataclass(frozen=True)
class _HeldTo:
    """What the stage's results are compared with, and how near they have to be."""

    spec: StageSpec
    cases: Sequence[ReferenceCase]
    tolerance: Tolerance
    half: Collection[str]  # inputs and outputs in fp16


class _Probe:
    """The stage with its weights as inputs, so that any of them can be rounded without making the graph anew."""

    def __init__(self, half: Path, bits: Bits, held_to: _HeldTo, folder: Path) -> None:
        model = load_graph(half)
        self.candidates: dict[str, QuantisableWeight] = {c.name: c for c in find_candidates(model, bits)}
        self.bytes = sum(c.values.nbytes for c in self.candidates.values())
        self._bits, self._to, self._folder, self._model = bits, held_to, folder, model
        self._session: ort.InferenceSession | None = None
        self._wide: dict[str, ort.OrtValue] = {}
        self._rounded: dict[str, ort.OrtValue] = {}

    def share(self, names: Collection[str]) -> float:
        """Part of the candidates' bytes that these are."""
        return sum(self.candidates[name].values.nbytes for name in names) / max(self.bytes, 1)

    def beginning(self, place: int) -> ReferenceCase:
        """The case with its first new positions alone; PyTorch's outputs are left out, being of the whole."""
        case = self._to.cases[place]
        feeds = dict(case.feeds)
        for tensor in self._to.spec.inputs:
            if "S" in tensor.shape:
                cut = [slice(_RANKED_POSITIONS if n == "S" else None) for n in tensor.shape]
                feeds[tensor.name] = feeds[tensor.name][tuple(cut)]
        return ReferenceCase(case.lengths, feeds, {})

    def run(self, case: ReferenceCase, rounded: Collection[str]) -> dict[str, NDArray[Any]]:
        """Outputs of a case with the weights in `rounded` quantised, the others in the next width."""
        if self._session is None:
            self._session = self._open()
        feeds = {
            name: ort.OrtValue.ortvalue_from_numpy(
                np.ascontiguousarray(value, np.float16 if name in self._to.half else None)
            )
            for name, value in case.feeds.items()
        }
        feeds |= {_fed(name): self._value(name, rounded=name in rounded) for name in self.candidates}
        names = [t.name for t in self._to.spec.outputs]
        found = self._session.run_with_ort_values(names, feeds)
        return {name: value.numpy() for name, value in zip(names, found, strict=True)}

    def errors(
        self,
        place: int,
        rounded: Collection[str],
        against: tuple[ReferenceCase, Mapping[str, NDArray[Any]]] | None = None,
    ) -> Errors:
        """Error of each output as a share of the tolerance: of a case against PyTorch, or of what is given."""
        case, expected = against or (self._to.cases[place], self._to.cases[place].outputs)
        found, limit = self.run(case, rounded), self._to.tolerance
        errors: Errors = {}
        for name, theirs in expected.items():
            ours = found[name]
            if not np.isfinite(ours).all():
                errors[place, name] = math.inf
                continue
            turned = math.sqrt(max(1 - cosine(ours, theirs), 0.0) / (1 - limit.cosine)) if limit.cosine < 1 else 0.0
            errors[place, name] = max(relative_l2(ours, theirs) / limit.relative_l2, turned)
        return errors

    def _value(self, name: str, *, rounded: bool) -> ort.OrtValue:
        """A weight in `bits`, or in the next width."""
        held = self._rounded if rounded else self._wide
        if name not in held:
            candidate, values = self.candidates[name], self.candidates[name].values
            if rounded or self._bits is Bits.FOUR:
                values = candidate.form(self._bits if rounded else Bits.EIGHT).rounded(values)
            # widened here and not in each run, which would take as long as all the rest of it
            held[name] = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(values, np.float32))
        return held[name]

    def _open(self) -> ort.InferenceSession:
        graph = self._model.graph
        for name, candidate in self.candidates.items():
            shape = ir.Shape(candidate.values.shape)
            fed = ir.Value(name=_fed(name), shape=shape, type=ir.TensorType(ir.DataType.FLOAT))
            graph.inputs.append(fed)
            candidate.reader.replace_input_with(1, fed)
        drop_unused_weights(graph)
        plain, emulated = self._folder / "probe.onnx", self._folder / "emulated.onnx"
        save_graph(self._model, plain)
        write_emulated(plain, emulated)
        settings = cpu_settings()
        return ort.InferenceSession(emulated, settings, providers=["CPUExecutionProvider"])


def _fed(name: str) -> str:
    return f"{name}.fed"
