"""What a precision is: how a graph gets it, how PyTorch emulates it, and how far the two may differ."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from perceiver_exporters.component import Cut
from perceiver_exporters.precision.audit.finding import AuditFinding
from perceiver_exporters.precision.calibration.statistics import Statistics
from perceiver_exporters.precision.formats import Format
from perceiver_exporters.precision.integers.plan import ComponentPlan, Plan
from perceiver_exporters.precision.integers.scheme import Scheme
from perceiver_exporters.precision.options import DEFAULTS, QuantizationOptions
from perceiver_exporters.reference import Feeds, Scope
from perceiver_exporters.stream import FeedStream
from perceiver_exporters.targets.target import Target
from perceiver_runtime.errors import UsageError
from perceiver_runtime.golden import GoldenSample
from perceiver_runtime.measure.tolerances import MARGINS, Margins

Graphs = Mapping[str, ir.Model]


@dataclass(frozen=True)
class Request:
    """What a rewrite may need beside the graph.

    Attributes:
        component: Name of the component.
        scheme: The target's integers.
        calibration: Starts a stream of the component's own reference inputs over the whole calibration set, all
            repetitions and chunks included, for a quantiser that measures ranges itself.
        findings: Nodes that stay in FP32.
        plan: How the component is quantised; None for a precision that plans nothing.
    """

    component: str
    scheme: Scheme
    calibration: Callable[[], Iterator[Feeds]]
    findings: tuple[AuditFinding, ...] = ()
    plan: ComponentPlan | None = None


@dataclass(frozen=True)
class Measured:
    """What a quantization plan is made from: the model in FP64, its FP32 graphs by component, and real inputs."""

    cut: Cut
    graphs: Graphs
    samples: FeedStream
    golden: Sequence[GoldenSample] = ()


@dataclass(frozen=True)
class Precision:
    """A precision; the defaults are those of one that needs neither calibration nor a plan.

    Attributes:
        name: As users and bundles spell it.
        summary: One line for users.
        share: Least share of the FLOPs of products with a constant weight that the rewritten graph must have in it.
        format: Type narrower than FP32 whose range the graph is audited for.
        calibrated: Whether it takes ranges from calibration data.
        planned: Whether it makes a quantization plan that options can influence.
    """

    name: str
    summary: str
    share: float = 1.0
    format: Format | None = None
    calibrated: bool = False
    planned: bool = False

    @property
    def margins(self) -> Margins:
        """A tolerance is the noise of the emulation times a margin, and at least a floor."""
        return MARGINS[self.name]

    def check(self, options: QuantizationOptions, target: Target) -> None:
        """Raise UsageError for an option that this precision does not have, or by which the target gains nothing."""
        ranges = dataclasses.replace(options, cache=None, budget=None, reduce_range=False, attention=False)
        if ranges != DEFAULTS and not (self.calibrated and self.planned):
            raise UsageError(
                f"calibration (--calibration): {self.name} is not calibrated: calibration is an option of int8"
            )
        if options.budget is not None and not self.planned:
            raise UsageError(
                f"max_accuracy_drop (--max-accuracy-drop) is an option of int8 and int8-dynamic, got "
                f"{self.name}: leave it out"
            )
        if options.reduce_range and not self.planned:
            raise UsageError(
                f"reduce_range (--reduce-range) is an option of int8 and int8-dynamic, got {self.name}: "
                "export one of these, or leave it out"
            )
        if options.reduce_range and not target.reduced:
            raise UsageError(
                f"reduce_range (--reduce-range) is for target cpu, whose sums of 8-bit products may saturate, got "
                f"{target.name}, where it would cost a bit of each weight for nothing: leave it out"
            )

        if options.attention and not (self.calibrated and self.planned and target.reduced):
            raise UsageError(
                f"attention (--quantize-attention) is an option of int8 for target cpu, got {self.name} for "
                f"{target.name}: leave it out"
            )

    def calibrate(self, measured: Measured, options: QuantizationOptions) -> Mapping[str, Statistics]:
        """Statistics of the activations by component; none by default."""
        return {}

    def plan(
        self,
        measured: Measured,
        statistics: Mapping[str, Statistics],
        scheme: Scheme,
        options: QuantizationOptions,
    ) -> Plan:
        """How each component is quantised; nothing by default."""
        return {}

    def rewrite(self, model: ir.Model, request: Request) -> ir.Model:
        """Turn an FP32 graph into this precision.

        Args:
            model: The graph, which may be changed in place.
            request: Findings, plan and calibration inputs of the component.

        Returns:
            The graph in this precision, the same object or another.

        Raises:
            CheckError: The graph can't have this precision.
        """
        raise NotImplementedError

    def emulate(self, cut: Cut, calibration: Iterable[Feeds], scheme: Scheme, plan: Plan | None = None) -> Scope:
        """The context in which PyTorch makes this precision's roundings.

        Ranges come from the plan, or, where there is none, from running the reference over the calibration samples.
        """
        raise NotImplementedError

    def prove(self, node: ir.Node) -> bool:
        """Whether a matrix product of a rewritten graph reads operands in this precision."""
        raise NotImplementedError
