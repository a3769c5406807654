"""Biases of keys and values that a softmax makes needless.

A key's bias adds the same to all scores of a query, which its softmax takes off again. The weights of a query sum to
one, so that a value's bias reaches the output projection as it is, and joins the bias there.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Draft, replace
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import Projection, Site, biased, sites
from perceiver_exporters.rules.matchers.attention_output import find_endings
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


def apply(sized: SizedGraph, _: Context) -> Verdict:
    """Take the biases off wherever a softmax stands between."""
    found = [site for site in sites(sized.graph) if site.softmax]
    keys = sum(_drop(site.key) for site in found)
    values = sum(_hand_on(sized.graph, site) for site in found)
    if not keys + values:
        return Declined("no softmax over keys or values with a bias")
    return Applied(f"{keys} of keys dropped, {values} of values handed on")


def _drop(projection: Projection) -> bool:
    """Let the readers of a linear layer read its product."""
    made, product = biased(projection.product), projection.product.outputs[0]
    if made is product or not projection.bias.any() or len(list(made.uses())) != 1:
        return False
    replace(made, product)
    return True


def _hand_on(graph: ir.Graph, site: Site) -> bool:
    """Put a bias of values into the one of the output projection, if that has one."""
    ending = find_endings(site.weighted)
    added = biased(ending.output.product).producer() if ending is not None else None
    if ending is None or added is None or added is ending.output.product or not _drop(site.value):
        return False
    handed = site.value.bias.astype(np.float64) @ ending.output.weight.astype(np.float64)
    bias = ending.output.bias.astype(np.float64) + handed
    write = Draft(graph, site.name, added)
    added.replace_input_with(1, write.constant(bias, f"{added.name}.with_values"))
    return True


SOFTMAX_BIAS = RewriteRule(
    "softmax-bias", "biases of keys dropped, those of values in the output's", apply, backends=("onnxruntime",)
)
