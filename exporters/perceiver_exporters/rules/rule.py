"""What a rewrite rule is, and what it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from perceiver_exporters.ir.flops import Cost
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.targets.target import Target


@dataclass(frozen=True)
class Context:
    """The target and the precision that the graph is exported for: what is faster depends on both."""

    target: Target
    precision: str

    @property
    def integers(self) -> bool:
        """Whether products with a weight become integer ones."""
        return self.precision in ("int8", "int8-dynamic")


@dataclass(frozen=True)
class Applied:
    """The graph was changed; `what` says what and where."""

    what: str


@dataclass(frozen=True)
class Declined:
    """The graph is as it was, and why."""

    reason: str


Verdict = Applied | Declined


@dataclass(frozen=True)
class RewriteRule:
    """A rewrite that keeps a graph's function up to the rounding of FP32.

    `apply` changes the graph in place or leaves it alone. `backends` are those it is for; empty: every one.
    """

    name: str
    summary: str
    apply: Callable[[SizedGraph, Context], Verdict]
    backends: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleOutcome:
    """What one rule did to one component, and what the graph cost before and after."""

    rule: str
    applied: bool
    detail: str
    before: Cost
    after: Cost
