"""Remove biases of keys and values under a softmax.

A key bias adds a per-query constant to the scores, to which softmax is invariant. The weights of a query sum to one, so
the value bias passes through the attention unchanged and can be added to the bias of the output projection.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import NodeBuilder, replace
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import AttentionSite, Projection, attention_sites, biased
from perceiver_exporters.rules.matchers.attention_output import find_attention_output
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


def apply(sized: SizedGraph, _: Context) -> Verdict:
    """Drop key biases and fold value biases into output biases."""
    found = [site for site in attention_sites(sized.graph) if site.softmax]
    keys = sum(_drop(site.key) for site in found)
    values = sum(_fold(sized.graph, site) for site in found)
    if not keys + values:
        return Declined("no softmax over keys or values with a bias")
    return Applied(f"{keys} key biases dropped, {values} value biases folded into output biases")


def _drop(projection: Projection) -> bool:
    """Remove the bias of a linear layer; whether there was one."""
    made, product = biased(projection.product), projection.product.outputs[0]
    if made is product or not projection.bias.any() or len(list(made.uses())) != 1:
        return False
    replace(made, product)
    return True


def _fold(graph: ir.Graph, site: AttentionSite) -> bool:
    """Fold the value bias into the bias of the output projection, if that has one."""
    found = find_attention_output(site.weighted)
    added = biased(found.output.product).producer() if found is not None else None
    if found is None or added is None or added is found.output.product or not _drop(site.value):
        return False
    folded = site.value.bias.astype(np.float64) @ found.output.weight.astype(np.float64)
    bias = found.output.bias.astype(np.float64) + folded
    build = NodeBuilder(graph, site.name, added)
    added.replace_input_with(1, build.constant(bias, f"{added.name}.with_values"))
    return True


SOFTMAX_BIAS = RewriteRule(
    "softmax-bias", "key biases dropped, value biases folded into the output's", apply, backends=("onnxruntime",)
)
