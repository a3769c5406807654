"""Write LayerNorms as the operator, whose kernel reads its input once, and which other rules and quantisers match."""

from __future__ import annotations

import numpy as np

from perceiver_exporters.ir.builder import NodeBuilder, replace
from perceiver_exporters.ir.sized import SizedGraph, distinct_shapes
from perceiver_exporters.rules.matchers.norms import WrittenNorm, written_norm
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


def apply(sized: SizedGraph, _: Context) -> Verdict:
    """Replace every LayerNorm that is written out."""
    shapes = distinct_shapes(sized) if any(node.op_type == "Sqrt" for node in sized.graph) else {}
    found = [norm for node in sized.graph if (norm := written_norm(node, shapes)) is not None and norm.centred]
    for norm in found:
        _write(sized, norm, shapes[str(norm.x.name)][-1])
    return Applied(", ".join(norm.name for norm in found)) if found else Declined("no LayerNorm is written out")


def _write(sized: SizedGraph, norm: WrittenNorm, channels: int) -> None:
    last = norm.made.producer()
    assert last is not None
    build = NodeBuilder(sized.graph, norm.name, last)
    scale = norm.scale if norm.scale is not None else np.ones(channels)
    given = [scale] if norm.bias is None else [scale, norm.bias]
    made = build("LayerNormalization", norm.x, *given, name="LayerNormalization", axis=-1, epsilon=norm.epsilon)
    replace(norm.made, made)


LAYER_NORMALIZATION = RewriteRule("layer-normalization", "LayerNorms that are written out, as the operator", apply)
