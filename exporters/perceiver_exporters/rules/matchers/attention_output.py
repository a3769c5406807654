"""Matcher for the output projection of an attention."""

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
class AttentionOutput:
    """A softmax attention's second MatMul, and the projections of its values (C, v_dim) and output (v_dim, D)."""

    weighted: ir.Node
    value: Projection
    output: Projection

    @property
    def name(self) -> str:
        """Name of the attention module."""
        return str(self.weighted.name).rsplit("/", 1)[0]


def find_single_head_output(node: ir.Node) -> AttentionOutput | None:
    """The output projection of an attention with one head, or None."""
    found = find_attention_output(node)
    return found if found is not None and heads_of(node) == 1 else None


def find_attention_output(node: ir.Node) -> AttentionOutput | None:
    """The linear layer behind merged heads (Transpose, Reshape), or None."""
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
    return None if output is None else AttentionOutput(node, value, output)
