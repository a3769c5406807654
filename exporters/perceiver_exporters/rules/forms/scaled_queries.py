"""Scale queries only: there are fewer of them than scores, and FP16 products stay in range.

(q k^T) s = (q s) k^T        (q a) (k b)^T = (q a b) k^T        scores / d = (q / d) k^T
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import NodeBuilder, replace
from perceiver_exporters.ir.sized import Shapes, SizedGraph, distinct_shapes
from perceiver_exporters.rules.matchers.attention import operand
from perceiver_exporters.rules.matchers.layout import STEPS, LayoutError
from perceiver_exporters.rules.matchers.linear import linear_of, only_reader
from perceiver_exporters.rules.matchers.score_path import ScorePath, scaled, score_paths
from perceiver_exporters.rules.matchers.written_attention import written_attention
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


def apply(sized: SizedGraph, _: Context) -> Verdict:
    """Move the scales of all scores and keys to the queries."""
    scales = [path for path in score_paths(sized.graph) if _of_scores(path) or _of_keys(path)]
    shapes = distinct_shapes(sized) if scales else {}
    done = [path.name for path in scales if _is_over_rows(path, shapes)]
    for path in scales:
        if path.name in done:
            _move(sized.graph, path)
    if scales and not done:
        return Declined("no keys and values are rows of one input")
    return Applied(", ".join(done)) if done else Declined("no scores or keys are scaled")


def _is_over_rows(path: ScorePath, shapes: Shapes) -> bool:
    """Whether scores are of heads, or keys and values are rows of one input: other rules match no other attention."""
    scores = path.scores.outputs[0].shape
    if scores is not None and len(scores) == 4:
        return True
    try:
        found = written_attention(path, shapes)
    except LayoutError:
        return False
    key, value = found.key.linear, found.value.linear
    return key is not None and value is not None and key.x is value.x


def _move(graph: ir.Graph, path: ScorePath) -> None:
    """Move the scales of one attention."""
    found = [*_of_scores(path), *_of_keys(path)]
    factor = 1.0
    for node in found:
        before, times = scaled(node) or (operand(node, 0), 1.0)
        replace(node.outputs[0], before)
        factor *= times
    _scale(graph, path, factor)


def _of_scores(path: ScorePath) -> list[ir.Node]:
    """Nodes that scale the scores before anything else is done to them."""
    found, last = [], path.scores
    for node in path.nodes:
        if only_reader(last.outputs[0]) is not node:
            break
        if scaled(node):
            found.append(node)
        elif node.op_type != "Reshape":
            break
        last = node
    return found


def _of_keys(path: ScorePath) -> list[ir.Node]:
    """Nodes that scale the keys, and nothing else, on the way from their projection."""
    found, value, reader = [], operand(path.scores, 1), path.scores
    while only_reader(value) is reader and linear_of(value) is None:
        node = value.producer()
        if node is None or node.domain:
            break
        if scaled(node):
            found.append(node)
        elif node.op_type not in STEPS:
            break
        times = scaled(node)
        value, reader = times[0] if times else operand(node, 0), node
    return found


def _scale(graph: ir.Graph, path: ScorePath, factor: float) -> None:
    """Multiply the queries, in the node that scales them already if there is one."""
    query = operand(path.scores, 0)
    node = query.producer()
    own = scaled(node) if node is not None and only_reader(query) is path.scores else None
    before, times = own or (query, 1.0)
    build = NodeBuilder(graph, path.name, path.scores)
    path.scores.replace_input_with(0, build("Mul", before, np.array(factor * times), name="scaled"))


SCALED_QUERIES = RewriteRule("scaled-queries", "scales of scores and keys, applied to the queries", apply)
