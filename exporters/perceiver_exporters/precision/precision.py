"""What it takes to be a precision: a graph rewrite, its emulation in PyTorch, and bounds on their difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import onnx_ir as ir

from perceiver_exporters.component import Cut
from perceiver_exporters.precision.audit.finding import Finding
from perceiver_exporters.precision.formats import Format
from perceiver_exporters.precision.integers.plan import ComponentPlan, Plan
from perceiver_exporters.reference import Scope
from perceiver_runtime.measure.tolerances import Margins
from perceiver_runtime.tensors import Array

Feeds = Mapping[str, Array]


@dataclass(frozen=True)
class Request:
    """What a rewrite may need beside the graph.

    `scheme` names the target's INT8 scheme; `calibration` starts a stream of the component's own reference
    inputs over the whole calibration set, all repetitions and pieces included, for a quantiser that takes ranges of its
    own; `planned` precisions need the `plan`. Nodes that `findings` name stay in FP32.
    """

    component: str
    scheme: str
    calibration: Callable[[], Iterator[Feeds]]
    findings: tuple[Finding, ...] = ()
    plan: ComponentPlan | None = None


class Emulation(Protocol):
    """The context in which PyTorch makes a precision's roundings.

    Ranges come from the plan, or, where there is none, from running the reference over the calibration samples.
    """

    def __call__(self, cut: Cut, calibration: Sequence[Feeds], scheme: str, plan: Plan | None = None) -> Scope:
        """For one cut and INT8 scheme."""


@dataclass(frozen=True)
class Precision:
    """A table entry.

    `rewrite` turns an FP32 graph into this precision; `emulate` gives the context in which PyTorch makes the same
    roundings. A bundle's tolerance is the error of the emulated reference times a margin, and at least a floor.
    `share` is the least part of the constant-weight products' FLOPs that must be found in this precision in the
    rewritten graph. `format` is the type narrower than FP32 whose range the graph is audited for, if there is one.
    `calibrated` ones read calibration data; of `planned` ones placement is ours to decide, and if they are calibrated
    too, ranges and smoothing.
    """

    name: str
    summary: str
    rewrite: Callable[[ir.Model, Request], ir.Model]
    emulate: Emulation
    margins: Margins
    share: float
    calibrated: bool = False
    planned: bool = False
    format: Format | None = None

    @property
    def margin(self) -> float:
        """What a tolerance multiplies the noise by."""
        return self.margins.margin

    @property
    def floor(self) -> float:
        """The least relative L2 tolerance."""
        return self.margins.floor
