"""RMS norms made of small parts become one node each, with the residual addition before them where there is one."""

from __future__ import annotations

from dataclasses import dataclass

from onnx import NodeProto, helper

from mgcc_calibration.graph import Graph, constant_value

_DOMAIN = "com.microsoft"


@dataclass(frozen=True)
class _Norm:
    """weight * (x * 1 / sqrt(mean(x ** 2) + epsilon)), as the exporter writes it."""

    x: str
    weight: str
    epsilon: float
    output: str


def fuse_norms(graph: Graph) -> None:
    """Replace every norm; one after an addition takes that along. What they were made of is left unread."""
    found = [norm for node in graph.nodes if node.op_type == "Reciprocal" and (norm := _norm(graph, node))]
    by_output = {norm.output: norm for norm in found}
    by_sum = {norm.x: norm for norm in found}
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        output = node.output[0] if node.output else ""
        if output in by_sum and _adds_two(graph, node):
            nodes.append(_skip_norm(by_sum[output], node))
        elif output in by_output:
            norm = by_output[output]
            if not _adds_two(graph, graph.producer.get(norm.x)):
                nodes.append(_plain_norm(norm))
        else:
            nodes.append(node)
    graph.replace_nodes(nodes)


def last_position_first(graph: Graph) -> None:
    """The last norm is needed at the last position alone, where the logits are read: cut before it, not after.

    With its addition it stays as it is, so it is taken apart again first. A norm that others read too is left alone.
    """
    for cut in [node for node in graph.nodes if node.op_type == "Slice"]:
        norm = graph.producer.get(cut.input[0])
        if norm is None or graph.consumers[norm.output[0]] != [cut] or norm.output[0] in graph.outputs:
            continue
        if norm.op_type == "SkipSimplifiedLayerNormalization" and not graph.consumers.get(norm.output[3]):
            a, b, weight = norm.input[:3]
            epsilon = next(v.f for v in norm.attribute if v.name == "epsilon")
            total = f"{norm.output[3]}_last"
            ends = list(cut.input[1:])
            new = [
                helper.make_node("Slice", [a, *ends], [f"{total}_a"]),
                helper.make_node("Slice", [b, *ends], [f"{total}_b"]),
                helper.make_node(
                    "SkipSimplifiedLayerNormalization", [f"{total}_a", f"{total}_b", weight], [cut.output[0]],
                    name=norm.name, domain=_DOMAIN, epsilon=epsilon,
                ),
            ]  # fmt: skip
            gone = {norm.output[0], cut.output[0]}
            place = next(i for i, n in enumerate(graph.nodes) if n.output[0] == cut.output[0])
            before = [n for n in graph.nodes[:place] if n.output[0] not in gone]
            graph.replace_nodes([*before, *new, *graph.nodes[place + 1 :]])


def _norm(graph: Graph, reciprocal: NodeProto) -> _Norm | None:
    """The norm around its reciprocal square root; None if it is anything else."""
    chain = [reciprocal]
    for wanted in ("Sqrt", "Add", "ReduceMean", "Pow"):
        node = graph.producer.get(chain[-1].input[0])
        if node is None or node.op_type != wanted:
            return None
        chain.append(node)
    epsilon, power = constant_value(graph, chain[2].input[1]), constant_value(graph, chain[4].input[1])
    x = chain[4].input[0]
    scaled = graph.consumers.get(reciprocal.output[0], [])
    if epsilon is None or power is None or float(power) != 2 or len(scaled) != 1 or x not in scaled[0].input:
        return None
    weighted = graph.consumers.get(scaled[0].output[0], [])
    if len(weighted) != 1 or weighted[0].op_type != "Mul":
        return None
    weight = next((name for name in weighted[0].input if name in graph.weights), None)
    return _Norm(x, weight, float(epsilon), weighted[0].output[0]) if weight else None


def _adds_two(graph: Graph, node: NodeProto | None) -> bool:
    """Whether the node adds two activations, as a residual connection does."""
    return node is not None and node.op_type == "Add" and not any(name in graph.weights for name in node.input)


def _skip_norm(norm: _Norm, add: NodeProto) -> NodeProto:
    return helper.make_node(
        "SkipSimplifiedLayerNormalization", [*add.input, norm.weight], [norm.output, "", "", norm.x],
        name=f"{norm.output}_norm", domain=_DOMAIN, epsilon=norm.epsilon,
    )  # fmt: skip


def _plain_norm(norm: _Norm) -> NodeProto:
    return helper.make_node(
        "SimplifiedLayerNormalization", [norm.x, norm.weight], [norm.output], name=f"{norm.output}_norm", axis=-1,
        epsilon=norm.epsilon, stash_type=1,
    )  # fmt: skip
