"""Which CUDA graphs of decode steps are kept, which may be replayed, and when one is worth capturing."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from mgcc_runtime.engines.tensorrt.contexts import Context
from mgcc_runtime.engines.tensorrt.cuda_stream import Graph
from mgcc_runtime.engines.tensorrt.record import Shape

#: Each graph has an execution context and a few hundred nodes: enough lengths for a text of the usual 24 words.
MOST_GRAPHS = 32
#: A capture takes several steps' time: no more than one in so many steps, or a text told again would falter.
PACE = 4
#: All graphs together may take this part of the GPU's memory.
SHARE_OF_MEMORY = 0.02
#: Graphs that save less than this part of a step's time are given up.
_LEAST_SAVING = 0.03
_MEASURED = 48  # steps of either kind, before that is judged


@dataclass(frozen=True)
class Places:
    """All that a captured graph has taken over: shapes, addresses by name, and the activation buffer."""

    shapes: Mapping[str, Shape]
    addresses: Mapping[str, int]
    scratch: tuple[int, int]  # address and size


@dataclass(frozen=True)
class _Kept:
    context: Context  # modifying the context that a graph was captured from invalidates it, so each has its own
    graph: Graph
    places: Places
    cost_bytes: int


class StepGraphs:
    """Graphs by the past length P of their step: P is the key, since every shape and address follows from it.

    A length is launched plainly the first time. The second time it has proved to come back, and its graph is captured
    after the launch; from the third time on it is replayed. When all places are taken, a length gets in only once it
    has been met more often than the rarest of those that are kept: lengths met equally often, such as those of one long
    text told again and again, would throw each other out, each captured and never replayed.
    """

    def __init__(self, most: int = MOST_GRAPHS, pace: int = PACE, budget_bytes: int | None = None) -> None:
        """`budget_bytes`: of the GPU's memory, for all graphs; None for no bound."""
        self._most, self._pace, self._budget = most, pace, budget_bytes
        self._kept: dict[int, _Kept] = {}
        self._met: dict[int, int] = {}  # no more lengths than the context has
        self._spare: list[Context] = []  # of graphs that were dropped
        self._steps = pace  # since the last capture

    def __len__(self) -> int:
        return len(self._kept)

    def places_at(self, length: int) -> Places | None:
        """The places of the graph at this past length."""
        kept = self._kept.get(length)
        return None if kept is None else kept.places

    def meet(self, length: int, places: Places) -> Graph | None:
        """Count a step at this past length; its graph, if there is one that was captured with the same places.

        Replayed with others, it would read and write where other things are now. One whose activation buffer is gone
        is dropped; one that stands aside because this step's cache lies elsewhere is of use again later.
        """
        self._met[length] = self._met.get(length, 0) + 1
        self._steps += 1
        kept = self._kept.get(length)
        if kept is None:
            return None
        if kept.places.scratch != places.scratch:
            self._drop(length)
            return None
        return kept.graph if kept.places == places else None

    def worth(self, length: int) -> bool:
        """Whether a step at this length, just met and without a graph, should get one now."""
        met = self._met.get(length, 0)
        if met < 2 or length in self._kept or self._steps < self._pace:
            return False
        full = len(self._kept) >= self._most or (self._budget is not None and self._next_cost() > self._budget)
        return not full or (bool(self._kept) and met > self._met[self._rarest()])

    def spare_context(self) -> Context | None:
        """A context of a graph that was dropped, to be used again."""
        return self._spare.pop() if self._spare else None

    def keep(self, length: int, context: Context, graph: Graph, places: Places, cost_bytes: int = 0) -> None:
        """Keep a graph and the context it was captured from, in the rarest one's place if all are taken.

        `cost_bytes`: what the GPU's memory has less since.
        """
        self._kept[length] = _Kept(context, graph, places, cost_bytes)
        self._steps = 0
        while len(self._kept) > 1 and (len(self._kept) > self._most or self._is_dear()):
            self._drop(min((n for n in self._kept if n != length), key=lambda n: self._met[n]))

    def close(self) -> None:
        """Free all graphs; to be called before their engine goes."""
        for length in list(self._kept):
            self._drop(length)
        self._spare.clear()

    def _next_cost(self) -> float:
        costs = [kept.cost_bytes for kept in self._kept.values()]
        return sum(costs) + (statistics.fmean(costs) if costs else 0)

    def _is_dear(self) -> bool:
        return self._budget is not None and sum(kept.cost_bytes for kept in self._kept.values()) > self._budget

    def _rarest(self) -> int:
        return min(self._kept, key=lambda length: self._met[length])

    def _drop(self, length: int) -> None:
        kept = self._kept.pop(length)
        kept.graph.close()
        self._spare.append(kept.context)


class Saving:
    """Whether replayed steps are faster than those launched plainly, on this very machine."""

    def __init__(self) -> None:
        self._plain_s: deque[float] = deque(maxlen=_MEASURED)
        self._replayed_s: deque[float] = deque(maxlen=_MEASURED)

    def note(self, spent_s: float, *, replayed: bool) -> None:
        """One step that was not captured, from its call to its results."""
        (self._replayed_s if replayed else self._plain_s).append(spent_s)

    def is_worth_it(self) -> bool | None:
        """Whether graphs save time worth their memory; None until there were enough steps of either kind."""
        if min(len(self._plain_s), len(self._replayed_s)) < _MEASURED:
            return None
        # the lower quartile: a step that another program held up says nothing
        plain, replayed = (statistics.quantiles(times)[0] for times in (self._plain_s, self._replayed_s))
        return replayed <= (1 - _LEAST_SAVING) * plain
