"""Remove constant masks that exclude no key."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.attention import HIGHEST_SCORE
from perceiver_exporters.ir.builder import replace
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import array_of, attention_sites, operand, producer
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict
from perceiver_runtime.tensors import Array

MOVES = ("Unsqueeze", "Expand", "Reshape", "Cast")
EXCLUDES_NOTHING: Mapping[str, Callable[[Array], bool]] = {
    "Add": lambda bias: not bias.any(),
    "Min": lambda limit: bool(np.all(np.greater_equal(limit, HIGHEST_SCORE))),
}
"""By operator that applies a mask to scores: whether a constant second operand leaves all scores unchanged."""


def apply(sized: SizedGraph, __: Context) -> Verdict:
    """Remove every mask that is constant and changes no score."""
    masked = [
        (site.name, applied) for site in attention_sites(sized.graph) if (applied := _applied(site.scores)) is not None
    ]
    if not masked:
        return Declined("no attention is masked")
    constant = [(name, node) for name, node in masked if _excludes_nothing(node.op_type, operand(node, 1))]
    for _, node in constant:
        replace(node.outputs[0], operand(node, 0))
    if not constant:
        return Declined("the mask is an input")
    return Applied(", ".join(name for name, _ in constant))


def _applied(scores: ir.Node) -> ir.Node | None:
    """The node that applies a mask to the scores, or None."""
    readers = [node for node, index in scores.outputs[0].uses() if index == 0]
    return readers[0] if len(readers) == 1 and readers[0].op_type in EXCLUDES_NOTHING else None


def _excludes_nothing(op: str, value: ir.Value) -> bool:
    """Whether a mask is a constant that changes no score, or a Where that always selects one."""
    for move in MOVES:
        moved = producer(value, move)
        value = operand(moved, 0) if moved else value
    constant, chosen = array_of(value), producer(value, "Where")
    if chosen is not None:
        condition = array_of(chosen.inputs[0])
        return condition is not None and bool(condition.all()) and _excludes_nothing(op, operand(chosen, 1))
    return constant is not None and EXCLUDES_NOTHING[op](constant)


UNMASKED_ATTENTION = RewriteRule("unmasked-attention", "masks that exclude no key removed", apply)
