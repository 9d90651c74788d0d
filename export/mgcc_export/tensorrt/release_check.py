"""Whether the ONNX parser of a release of TensorRT takes a graph, asked when it is exported.

The device may have an older release than the newest, and says so only there: after the graph was made, copied and half
of the engines were built. What its compiler then makes of the graph, only it can tell.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx_ir as ir

from mgcc_calibration.graphs.storage import load_graph
from mgcc_export.errors import EngineRefusedError
from mgcc_export.tensorrt.parser_facts import (
    LATER_OPERATORS,
    LATER_TYPES,
    LEAST_OPSET,
    OPERATORS,
    TYPES,
    Version,
    last_opset,
    written,
)
from mgcc_export.tensorrt.parser_rules import RULES, kind_of


def check_release(graph: Path, stage: str, release: Version) -> None:
    """EngineRefusedError, with the first of what is wrong, unless the parser of `release` takes the graph."""
    for found in refusals(graph, release):
        raise EngineRefusedError(
            f"stage {stage}: {found}, and its engine has to be built by TensorRT {written(release)}, too; take another "
            "--precision, or --target ort-gpu, and report it"
        )


def refusals(path: Path, release: Version) -> Iterator[str]:
    """What the parser of `release` does not take of a graph, a clause each; the release that does, if one does."""
    graph = load_graph(path).graph
    opset = graph.opset_imports.get("", LEAST_OPSET)
    if not LEAST_OPSET <= opset <= last_opset(release):
        yield f"the graph has opset {opset}, expected {LEAST_OPSET} to {last_opset(release)}"
    results = [value for node in graph for value in node.outputs]
    for value in dict.fromkeys((*graph.inputs, *graph.initializers.values(), *results)):
        kind = kind_of(value)
        if kind and not _has(kind.name, TYPES, LATER_TYPES, release):
            yield f"{value.name} has the type {kind.name.lower()}{_taken(LATER_TYPES.get(kind.name))}"
    for node in graph.all_nodes():  # those of graphs within nodes, too
        yield from _of_node(node, opset, release)


def _of_node(node: ir.Node, opset: int, release: Version) -> Iterator[str]:
    name = f"{node.op_type} {node.name or node.outputs[0].name}"
    if node.domain not in ("", "ai.onnx"):
        yield f"{name} is of the domain {node.domain}, which TensorRT's parser has not"
    elif not _has(node.op_type, OPERATORS, LATER_OPERATORS, release):
        later = LATER_OPERATORS.get(node.op_type)
        yield f"{name} is an operator that TensorRT's parser has {f'from {written(later)} on' if later else 'not'}"
    for rule in RULES:
        old = rule.since is None or release < rule.since
        if old and node.op_type in rule.operators and rule.broken(node, opset):
            yield f"{name} has {rule.told}{_taken(rule.since)}"


def _has(word: str, always: frozenset[str], later: Mapping[str, Version], release: Version) -> bool:
    return word in always or (word in later and release >= later[word])


def _taken(since: Version | None) -> str:
    return f", which TensorRT's parser takes from {written(since)} on" if since else ", which TensorRT's parser refuses"
