"""The logits are read at the last position alone, so the last norm is not computed for the others."""

from __future__ import annotations

from mgcc_calibration.graphs.edit import make_node, replace_value
from mgcc_calibration.graphs.graph import Graph


def last_position_first(graph: Graph) -> None:
    """The last norm is needed at the last position alone, where the logits are read: cut before it, not after.

    With its addition it stays as it is, so it is taken apart again first. A norm that others read too is left alone.
    """
    for cut in [node for node in graph.nodes if node.op_type == "Slice"]:
        norm = cut.inputs[0].producer() if cut.inputs[0] is not None else None
        if norm is None or [*norm.outputs[0].consumers()] != [cut] or norm.outputs[0].is_graph_output():
            continue
        if norm.op_type == "SkipSimplifiedLayerNormalization" and not norm.outputs[3].uses():
            total = f"{norm.outputs[3].name}_last"
            parts = [
                make_node("Slice", [value, *cut.inputs[1:]], [f"{total}_{letter}"])
                for letter, value in zip("ab", norm.inputs, strict=False)
            ]
            inputs = [*(part.outputs[0] for part in parts), norm.inputs[2]]
            last = make_node(
                norm.op_type, inputs, [str(cut.outputs[0].name)], norm.name or "", norm.domain,
                epsilon=norm.attributes["epsilon"].value,
            )  # fmt: skip
            graph.model.graph.insert_before(cut, [*parts, last])
            replace_value(cut.outputs[0], last.outputs[0])
            graph.model.graph.remove([cut, norm], safe=True)
