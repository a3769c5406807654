"""A mask that excludes nothing is not added to the scores."""

from __future__ import annotations

import onnx_ir as ir

from perceiver_exporters.rules.draft import replace
from perceiver_exporters.rules.rule import Applied, Context, Declined, Rule, Verdict
from perceiver_exporters.rules.sites import array_of, operand, producer, sites

MOVES = ("Unsqueeze", "Expand", "Reshape", "Cast")


def apply(model: ir.Model, __: Context) -> Verdict:
    """Drop every bias of scores that is a constant zero."""
    masked = [(site.name, added) for site in sites(model.graph) if (added := _added(site.scores)) is not None]
    if not masked:
        return Declined("no attention is masked")
    constant = [(name, added) for name, added in masked if _is_zero(operand(added, 1))]
    for _, added in constant:
        replace(added.outputs[0], operand(added, 0))
    if not constant:
        return Declined("the mask is an input")
    return Applied(", ".join(name for name, _ in constant))


def _added(scores: ir.Node) -> ir.Node | None:
    """The Add that takes the scores first."""
    readers = [node for node, index in scores.outputs[0].uses() if index == 0]
    return readers[0] if len(readers) == 1 and readers[0].op_type == "Add" else None


def _is_zero(value: ir.Value) -> bool:
    """A constant of zeros, or a choice whose condition is constant and true and whose first branch is zero."""
    for op in MOVES:
        moved = producer(value, op)
        value = operand(moved, 0) if moved else value
    constant, chosen = array_of(value), producer(value, "Where")
    if chosen is not None:
        condition = array_of(chosen.inputs[0])
        return condition is not None and bool(condition.all()) and _is_zero(operand(chosen, 1))
    return constant is not None and not constant.any()


UNMASKED_ATTENTION = Rule("unmasked-attention", "masks that exclude nothing are dropped", apply)
