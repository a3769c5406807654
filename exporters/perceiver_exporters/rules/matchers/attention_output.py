"""Where an attention ends: its weighted values, and the output projection that follows at once."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from perceiver_exporters.rules.matchers.attention import (
    Projection,
    biased,
    heads_of,
    producer,
    projected_values,
    projection,
)


@dataclass(frozen=True)
class Ending:
    """Values (B, heads, M, v_dim / heads) weighted by a softmax, and the projection (v_dim, D) that follows at once."""

    weighted: ir.Node
    value: Projection
    output: Projection

    @property
    def name(self) -> str:
        """Name of the module that attends."""
        return str(self.weighted.name).rsplit("/", 1)[0]


def find_ending(node: ir.Node) -> Ending | None:
    """The ending of one head."""
    ending = find_endings(node)
    return ending if ending is not None and heads_of(node) == 1 else None


def find_endings(node: ir.Node) -> Ending | None:
    """Heads merged by Transpose and Reshape, then a linear layer."""
    value = projected_values(node)
    if value is None or producer(node.inputs[0], "Softmax") is None:
        return None
    last = node
    for op in ("Transpose", "Reshape", "MatMul"):
        readers = list(last.outputs[0].uses())
        if len(readers) != 1 or readers[0][0].op_type != op:
            return None
        last = readers[0][0]
    output = projection(biased(last))
    return None if output is None else Ending(node, value, output)
