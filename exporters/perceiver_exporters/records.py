"""What an export has made of each component so far."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from perceiver_exporters.component import Component
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.precision.audit.finding import AuditFinding
from perceiver_exporters.precision.integers.plan import ComponentPlan, Plan
from perceiver_exporters.precision.placement.search import Pareto


@dataclass(frozen=True)
class ComponentRecord:
    """What the stages make of one component.

    Attributes:
        component: The component.
        fp32: Its graph in FP32, as traced and then as rewritten by rules; None before it is traced.
        findings: Nodes that leave the precision's range.
        plan: How it is quantised, where the precision plans that.
        graph: Its graph in the precision; None before that is written.
    """

    component: Component
    fp32: SizedGraph | None = None
    findings: tuple[AuditFinding, ...] = ()
    plan: ComponentPlan | None = None
    graph: ir.Model | None = None


@dataclass(frozen=True)
class Records:
    """All components, and the table of a placement search, if there was one."""

    components: Mapping[str, ComponentRecord]
    pareto: Pareto | None = None

    @property
    def fp32(self) -> dict[str, SizedGraph]:
        """The FP32 graphs of the components that are traced."""
        return {name: record.fp32 for name, record in self.components.items() if record.fp32 is not None}

    @property
    def models(self) -> dict[str, ir.Model]:
        """The same without sizes."""
        return {name: graph.model for name, graph in self.fp32.items()}

    @property
    def graphs(self) -> dict[str, ir.Model]:
        """The graphs in the asked precision."""
        return {name: record.graph for name, record in self.components.items() if record.graph is not None}

    @property
    def plan(self) -> Plan:
        """The quantization plan; empty for a precision that plans nothing."""
        return {name: record.plan for name, record in self.components.items() if record.plan is not None}

    def planned(self, plan: Plan) -> Records:
        """These records with another quantization plan."""
        return self.update(lambda r: dataclasses.replace(r, plan=plan.get(r.component.name)))

    def update(self, change: Callable[[ComponentRecord], ComponentRecord]) -> Records:
        """These records with each component's changed."""
        return dataclasses.replace(self, components={name: change(r) for name, r in self.components.items()})
