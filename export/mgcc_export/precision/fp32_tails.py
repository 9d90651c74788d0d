"""Nodes to keep in fp32 where a stage sorts or takes the largest value, which one rounding may change.

No layer of such a stage is inaccurate: each is within a few 1e-4 of fp32, and then two queries of the grounder that
differ by less change places, or a box takes the other of two places that are as likely. What helps is to keep fp32 on
the way to the decision, from some point on: the errors that arise before it are smaller than those that add up.
"""

from __future__ import annotations

from pathlib import Path

from mgcc_calibration.graphs.storage import load_graph
from mgcc_export.precision.fp16 import ORDERS, ancestors

#: Shares of what leads to the decisions that are tried in fp32, its end first. The last one cannot miss: then
#: everything that is decided is decided as in fp32.
SHARES = (0.25, 0.5, 1.0)


def decision_tails(source: Path) -> list[tuple[str, ...]]:
    """Names of the nodes to keep in fp32, one set for each of `SHARES`; none for a graph that decides nothing."""
    graph = load_graph(source).graph
    deciding = [node for node in graph if node.op_type in ORDERS]
    leading = {found for node in deciding for found in ancestors(node)}
    names = [node.name for node in graph if node in leading and node.name]
    return [tuple(names[-max(1, round(share * len(names))) :]) for share in SHARES] if names else []
