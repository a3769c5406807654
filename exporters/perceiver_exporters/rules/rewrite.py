"""The rewrite rules in the order in which they run, and their outcomes, stored in the graph's metadata."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import onnx
import onnx_ir as ir
from onnx_ir.passes import common

from perceiver_exporters.ir.flops import Cost, cost
from perceiver_exporters.ir.quiet import quiet
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.attention.absorbed_attention import ABSORBED_ATTENTION
from perceiver_exporters.rules.attention.attention_form import ATTENTION_FORM
from perceiver_exporters.rules.attention.gathered_scores import GATHERED_SCORES
from perceiver_exporters.rules.attention.separable_positions import SEPARABLE_POSITIONS
from perceiver_exporters.rules.attention.separable_queries import SEPARABLE_QUERIES
from perceiver_exporters.rules.attention.softmax_bias import SOFTMAX_BIAS
from perceiver_exporters.rules.attention.unmasked_attention import UNMASKED_ATTENTION
from perceiver_exporters.rules.constants.constant_product import CONSTANT_PRODUCT
from perceiver_exporters.rules.constants.constant_query import CONSTANT_QUERY
from perceiver_exporters.rules.constants.constant_sum import CONSTANT_SUM
from perceiver_exporters.rules.constants.gathered_query import GATHERED_QUERY
from perceiver_exporters.rules.constants.token_tables import TOKEN_TABLES
from perceiver_exporters.rules.forms.attention_layout import ATTENTION_LAYOUT
from perceiver_exporters.rules.forms.layer_normalization import LAYER_NORMALIZATION
from perceiver_exporters.rules.forms.root_mean_square import ROOT_MEAN_SQUARE
from perceiver_exporters.rules.forms.scaled_queries import SCALED_QUERIES
from perceiver_exporters.rules.forms.softmax_maximum import SOFTMAX_MAXIMUM
from perceiver_exporters.rules.products.folded_head import FOLDED_HEAD
from perceiver_exporters.rules.products.folded_output import FOLDED_OUTPUT
from perceiver_exporters.rules.products.packed_projections import PACKED_PROJECTIONS
from perceiver_exporters.rules.products.padded_channels import PADDED_CHANNELS
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, RuleOutcome, Verdict

METADATA = "perceiver.rules"
"""Metadata key of a rewritten graph: the outcomes, as JSON."""

REWRITE_RULES: tuple[RewriteRule, ...] = (
    LAYER_NORMALIZATION,
    ROOT_MEAN_SQUARE,
    SOFTMAX_MAXIMUM,
    SCALED_QUERIES,
    ATTENTION_LAYOUT,
    UNMASKED_ATTENTION,
    CONSTANT_QUERY,
    GATHERED_QUERY,
    GATHERED_SCORES,
    TOKEN_TABLES,
    SEPARABLE_POSITIONS,
    SEPARABLE_QUERIES,
    ABSORBED_ATTENTION,
    FOLDED_OUTPUT,
    FOLDED_HEAD,
    CONSTANT_PRODUCT,
    CONSTANT_SUM,
    SOFTMAX_BIAS,
    PACKED_PROJECTIONS,
    PADDED_CHANNELS,
    ATTENTION_FORM,
)


def rewrite(
    sized: SizedGraph, context: Context, rules: Sequence[RewriteRule] = REWRITE_RULES
) -> tuple[RuleOutcome, ...]:
    """Run rewrite rules over a graph and store their outcomes in its metadata.

    Args:
        sized: FP32 graph, modified in place.
        context: Target and precision of the export.
        rules: Rules in the order in which they run.

    Returns:
        One outcome per rule, those that declined included.
    """
    before = cost(sized)
    made = []
    for rule in rules:
        verdict = _run(rule, sized, context)
        after = cost(sized) if isinstance(verdict, Applied) else before
        made.append(_outcome(rule, verdict, before, after))
        before = after
    sized.model.metadata_props[METADATA] = json.dumps([dataclasses.asdict(outcome) for outcome in made])
    return tuple(made)


def outcomes(model: ir.Model) -> tuple[RuleOutcome, ...]:
    """The outcomes that `rewrite` stored in a graph."""
    stored = json.loads(model.metadata_props.get(METADATA, "[]"))
    return tuple(
        RuleOutcome(o["rule"], o["applied"], o["detail"], Cost(**o["before"]), Cost(**o["after"])) for o in stored
    )


def stored_outcomes(path: Path) -> tuple[RuleOutcome, ...]:
    """The outcomes stored in an ONNX file; its external data is not read."""
    return outcomes(ir.from_proto(onnx.load(path, load_external_data=False)))


def _run(rule: RewriteRule, sized: SizedGraph, context: Context) -> Verdict:
    if rule.backends and context.target.backend not in rule.backends:
        return Declined(f"not for {context.target.backend}")
    verdict = rule.apply(sized, context)
    if isinstance(verdict, Applied):
        common.RemoveUnusedNodesPass()(sized.model)
        with quiet():
            common.ShapeInferencePass()(sized.model)
        sized.invalidate()
    return verdict


def _outcome(rule: RewriteRule, verdict: Verdict, before: Cost, after: Cost) -> RuleOutcome:
    if isinstance(verdict, Applied):
        return RuleOutcome(rule.name, True, verdict.what, before, after)
    return RuleOutcome(rule.name, False, verdict.reason, before, after)
