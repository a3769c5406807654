"""Rewrite rules: graph transformations that reduce work and keep the function, one rule per file, in a fixed order."""

from perceiver_exporters.rules.rewrite import REWRITE_RULES, outcomes, rewrite, stored_outcomes
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, RuleOutcome

__all__ = [
    "REWRITE_RULES",
    "Applied",
    "Context",
    "Declined",
    "RewriteRule",
    "RuleOutcome",
    "outcomes",
    "rewrite",
    "stored_outcomes",
]
