"""Remove the subtraction of a row's maximum before a softmax, which every backend's softmax does itself.

    softmax(s - max(s)) = softmax(s)

A mask may be between: one that is added, or one that sets scores so low that their weights are zero in both forms.
"""

from __future__ import annotations

import onnx_ir as ir

from perceiver_exporters.ir.builder import replace
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import array_of, operand, producer
from perceiver_exporters.rules.matchers.score_path import ScorePath, fill_of, score_paths
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict

LOWEST = -1e30
"""A score that is far below all others, whatever is subtracted from these."""


def apply(sized: SizedGraph, _: Context) -> Verdict:
    """Remove all subtractions of a maximum that a softmax makes without effect."""
    paths = score_paths(sized.graph)
    found = [(path, node) for path in paths for node in path.nodes if _subtracts_maximum(node)]
    chosen = [(path, node) for path, node in found if _is_without_effect(path, node)]
    for _path, node in chosen:
        replace(node.outputs[0], operand(node, 0))
    if chosen:
        return Applied(", ".join(path.name for path, _ in chosen))
    return Declined("a mask sets scores relative to the maximum" if found else "no maximum is subtracted")


def _subtracts_maximum(node: ir.Node) -> bool:
    """Whether a node is s - max(s), over the last axis."""
    if node.op_type != "Sub" or len(list(node.outputs[0].uses())) != 1:
        return False
    largest = producer(node.inputs[1], "ReduceMax")
    if largest is None or largest.inputs[0] is not node.inputs[0] or not largest.attributes.get_int("keepdims", 1):
        return False
    axes, shape = array_of(largest.inputs[1]) if len(largest.inputs) > 1 else None, node.outputs[0].shape
    return axes is not None and shape is not None and axes.size == 1 and int(axes.item()) in (-1, len(shape) - 1)


def _is_without_effect(path: ScorePath, node: ir.Node) -> bool:
    """Whether all that follows keeps differences of scores, or makes their weights zero."""
    later = path.nodes[path.nodes.index(node) + 1 :]
    return all(
        each.op_type in ("Add", "Reshape") or ((fill := fill_of(each)) is not None and fill <= LOWEST) for each in later
    )


SOFTMAX_MAXIMUM = RewriteRule("softmax-maximum", "subtraction of a maximum before a softmax removed", apply)
