"""The export of a bundle repeated from its source, with the decisions that the bundle recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import onnx
import onnx_ir as ir

from perceiver_exporters.bundle.stored_graphs import stored_graph
from perceiver_exporters.component import Blueprint, Cut
from perceiver_exporters.diagnose.bisection.record import precision_record
from perceiver_exporters.exporter import Exporter, Tracer
from perceiver_exporters.precision import PRECISIONS, Graphs
from perceiver_exporters.precision.audit.activations import ACTIVATION_RULES, Findings
from perceiver_exporters.precision.integers.plan import ComponentPlan
from perceiver_exporters.precision.integers.smooth import divisors, smooth
from perceiver_exporters.precision.options import QuantizationOptions
from perceiver_exporters.precision.record import ComponentPrecision
from perceiver_exporters.records import ComponentRecord, Records
from perceiver_exporters.rules import RewriteRule, outcomes
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.golden import GoldenSample
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.pipeline import Chunk, Pipeline, Step


@dataclass(frozen=True)
class Fresh:
    """A component's graph as exported now: in FP32, and in the bundle's precision."""

    fp32: onnx.ModelProto
    rewritten: onnx.ModelProto


def as_bundled(cut: Cut, manifest: Manifest) -> Cut:
    """The cut with the bundle's profile, and with its chunk sizes where both chunk the same dimension."""
    steps = {step.component: step for step in manifest.pipeline.steps}
    pipeline = dataclasses.replace(
        cut.pipeline, steps=tuple(_chunked(step, steps.get(step.component)) for step in cut.pipeline.steps)
    )
    return dataclasses.replace(cut.resized(manifest.profiles[0]), pipeline=pipeline)


def can_export_again(blueprint: Blueprint, manifest: Manifest) -> bool:
    """Whether the blueprint has the calibration data that the bundle's precision needs."""
    return bool(blueprint.calibration) or not PRECISIONS[manifest.precision].calibrated


@dataclass(frozen=True)
class RecordedExporter(Exporter):
    """The export of a bundle's source with the decisions that the bundle recorded.

    Decisions that were measured, perhaps on another machine, are taken from the record: rewrite rules, audit findings
    on activations, scale migration, and layers kept in FP32. For `records`: it has no golden samples to export.
    """

    bundle: Bundle = field(kw_only=True)

    @classmethod
    def of(cls, blueprint: Blueprint, bundle: Bundle, tracer: Tracer) -> RecordedExporter:
        """An exporter of a blueprint with the sizes of the bundle (`as_bundled`)."""
        record = precision_record(bundle)
        methods = {name: entry.calibration for name, entry in record.items() if entry.calibration}
        reduced = any(entry.reduced_range for entry in record.values())
        precision, target = PRECISIONS[bundle.manifest.precision], TARGETS[bundle.manifest.target]
        attention = any(entry.attention for entry in record.values())
        options = QuantizationOptions(overrides=methods, reduce_range=reduced, attention=attention)
        return cls(blueprint, precision, target, options, tracer, bundle=bundle)

    @cached_property
    def recorded(self) -> Mapping[str, ComponentPrecision]:
        """The bundle's precision record by component."""
        return precision_record(self.bundle)

    @cached_property
    def golden(self) -> tuple[GoldenSample, ...]:
        """Empty: no decision is measured."""
        return ()

    def rules_for(self, component: str) -> Sequence[RewriteRule]:
        """The rules that were applied to this component."""
        done = outcomes(stored_graph(self.bundle, self.bundle.manifest.component(component).onnx))
        applied = {outcome.rule for outcome in done if outcome.applied}
        return [rule for rule in self.rules if rule.name in applied]

    def audit_inputs(self, graphs: Graphs, static: Findings) -> Findings:
        """The recorded findings on activations, which depend on the inputs of that export."""
        entries = {name: self.recorded.get(name) for name in graphs}
        return {
            name: tuple(f for f in entry.findings if f.rule in ACTIVATION_RULES) if entry is not None else ()
            for name, entry in entries.items()
        }

    def quantize(self, records: Records) -> Records:
        """Stage: calibration, with the recorded scale migration and layers in FP32."""
        return super().quantize(records).update(self._as_recorded)

    def _as_recorded(self, record: ComponentRecord) -> ComponentRecord:
        plan, entry = record.plan, self.recorded.get(record.component.name)
        if plan is None or entry is None:
            return record
        assert record.fp32 is not None
        scales = divisors(record.fp32.model, plan.statistics) if entry.smoothed else {}
        return dataclasses.replace(record, plan=dataclasses.replace(plan, divisors=scales, kept=frozenset(entry.kept)))


def export_again(blueprint: Blueprint, bundle: Bundle, names: Sequence[str], tracer: Tracer) -> Mapping[str, Fresh]:
    """Graphs of the named components."""
    records = RecordedExporter.of(blueprint, bundle, tracer).records(names)
    return {
        name: Fresh(ir.to_proto(_smoothed(graph, records.plan.get(name))), ir.to_proto(records.graphs[name]))
        for name, graph in records.models.items()
    }


def step_differences(expected: Pipeline, got: Pipeline) -> list[tuple[str, str]]:
    """Differences in how two pipelines run their components: (component, description). Chunk sizes may differ."""
    ours, theirs = ([step.component for step in pipeline.steps] for pipeline in (expected, got))
    if ours != theirs:
        return [("pipeline", f"it runs {', '.join(theirs)}; its source runs {', '.join(ours)}")]
    found = []
    for a, b in zip(expected.steps, got.steps, strict=True):
        found += [
            (a.component, f"{field} is {getattr(b, field)}; its source has {getattr(a, field)}")
            for field in ("repeat", "inputs", "outputs", "carry", "stage")
            if getattr(a, field) != getattr(b, field)
        ]
        if _way(a.chunk) != _way(b.chunk):
            found.append((a.component, f"chunked along {_way(b.chunk)}; its source along {_way(a.chunk)}"))
    return found


def _smoothed(graph: ir.Model, plan: ComponentPlan | None) -> ir.Model:
    """Scale migration is exact in FP32; with it, values have the scales of the bundle."""
    return smooth(graph.clone(), plan.divisors) if plan is not None and plan.divisors else graph


def _chunked(step: Step, bundled: Step | None) -> Step:
    if step.chunk is None or bundled is None or _way(bundled.chunk) != _way(step.chunk):
        return step
    return dataclasses.replace(step, chunk=bundled.chunk)


def _way(chunk: Chunk | None) -> str | None:
    if chunk is None:
        return None
    return f"{chunk.dimension}, the first chunk only" if chunk.only_first else chunk.dimension
