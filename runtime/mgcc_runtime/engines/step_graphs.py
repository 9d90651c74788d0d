"""Which CUDA graphs of decode steps are kept, which may be replayed, and when one is worth capturing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mgcc_runtime.engines.cuda import Graph
from mgcc_runtime.engines.engine_record import Shape

#: Each graph holds an execution context and a few hundred nodes in the memory of host and GPU: enough lengths for two
#: texts of the usual 24 words. How large they are has been measured on no GPU.
MOST_GRAPHS = 64


@dataclass(frozen=True)
class Places:
    """All that a captured graph has taken over: shapes, addresses by name, and the activation buffer."""

    shapes: Mapping[str, Shape]
    addresses: Mapping[str, int]
    scratch: tuple[int, int]  # address and size


@dataclass(frozen=True)
class _Kept:
    context: Any  # modifying the context that a graph was captured from invalidates it, so each has its own
    graph: Graph
    places: Places


class StepGraphs:
    """Graphs by the past length P of their step: P is the key, since every shape and address follows from it.

    A length is launched plainly the first time. The second time it has proved to come back, and its graph is captured
    after the launch; from the third time on it is replayed. When all `most` are taken, a length gets in only once it
    has been met more often than the rarest of those that are kept: lengths met equally often, such as those of one long
    text told again and again, would throw each other out, each captured and never replayed.
    """

    def __init__(self, most: int = MOST_GRAPHS) -> None:
        self._most = most
        self._kept: dict[int, _Kept] = {}
        self._met: dict[int, int] = {}  # no more lengths than the context has

    def __len__(self) -> int:
        return len(self._kept)

    def meet(self, length: int, places: Places) -> Graph | None:
        """Count a step at this past length; its graph, if there is one that was captured with the same places.

        One that was captured with others is dropped: replayed, it would read and write where other things are now.
        """
        self._met[length] = self._met.get(length, 0) + 1
        kept = self._kept.get(length)
        if kept is None:
            return None
        if kept.places != places:
            self._drop(length)
            return None
        return kept.graph

    def worth(self, length: int) -> bool:
        """Whether a step at this length, just met and without a graph, should get one."""
        met = self._met.get(length, 0)
        return met > 1 and (len(self._kept) < self._most or met > self._met[self._rarest()])

    def keep(self, length: int, context: Any, graph: Graph, places: Places) -> None:
        """Keep a graph and the context it was captured from, in the rarest one's place if all are taken."""
        if len(self._kept) >= self._most:
            self._drop(self._rarest())
        self._kept[length] = _Kept(context, graph, places)

    def close(self) -> None:
        """Free all graphs; to be called before their engine goes."""
        for length in list(self._kept):
            self._drop(length)

    def _rarest(self) -> int:
        return min(self._kept, key=lambda length: self._met[length])

    def _drop(self, length: int) -> None:
        self._kept.pop(length).graph.close()
