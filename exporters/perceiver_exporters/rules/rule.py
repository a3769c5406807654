"""What a rewrite rule is, and what it reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from perceiver_exporters.ir.count import Cost
from perceiver_exporters.targets.target import Target
from perceiver_runtime.pipeline import Step
from perceiver_runtime.tensors import Profile, TensorSpec


@dataclass(frozen=True)
class Context:
    """Where the graph comes from and where it goes: a rule pays or not at the profile's `opt` sizes, on one target."""

    component: str
    inputs: tuple[TensorSpec, ...]
    profile: Profile
    target: Target
    precision: str
    step: Step

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
class Rule:
    """A rewrite that keeps a graph's function up to the rounding of FP32.

    `apply` changes the graph in place or leaves it alone. `backends` are those it is for; empty: every one.
    """

    name: str
    summary: str
    apply: Callable[[ir.Model, Context], Verdict]
    backends: tuple[str, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What one rule did to one component, and what the graph cost before and after."""

    rule: str
    applied: bool
    detail: str
    before: Cost
    after: Cost
