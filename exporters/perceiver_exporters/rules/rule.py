"""The interface of a rewrite rule, and its outcome."""

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
        """Whether the precision quantises products with a constant weight."""
        return self.precision in ("int8", "int8-dynamic")


@dataclass(frozen=True)
class Applied:
    """The graph was modified; `what` names the nodes or modules."""

    what: str


@dataclass(frozen=True)
class Declined:
    """The graph was not modified, for this reason."""

    reason: str


Verdict = Applied | Declined


@dataclass(frozen=True)
class RewriteRule:
    """A rewrite that keeps a graph's function up to FP32 rounding.

    Attributes:
        name: Stored in bundles and shown by `inspect`.
        summary: One line for reports.
        apply: Modifies the graph in place and returns `Applied`, or leaves it unchanged and returns `Declined`.
        backends: Backends that the rule is for; empty means all.
    """

    name: str
    summary: str
    apply: Callable[[SizedGraph, Context], Verdict]
    backends: tuple[str, ...] = ()


@dataclass(frozen=True)
class RuleOutcome:
    """Result of one rule on one component: whether it applied, where or why not, and the cost before and after."""

    rule: str
    applied: bool
    detail: str
    before: Cost
    after: Cost
