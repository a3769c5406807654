"""Rewrites of traced graphs that save work and keep their function: one rule per file, in one visible order."""

from perceiver_exporters.rules.rewrite import RULES, outcomes, rewrite, stored_outcomes
from perceiver_exporters.rules.rule import Applied, Context, Declined, Outcome, Rule

__all__ = ["RULES", "Applied", "Context", "Declined", "Outcome", "Rule", "outcomes", "rewrite", "stored_outcomes"]
