"""The source exported again, to what the bundle should hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import onnx
import onnx_ir as ir

from perceiver_exporters.bundle.stored import stored_graph
from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.diagnose.bisection.record import precision_record
from perceiver_exporters.export import Tracer
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.precision import PRECISIONS, Feeds, Precision, Request
from perceiver_exporters.precision.audit.activations import ACTIVATION_RULES
from perceiver_exporters.precision.audit.constants import audit
from perceiver_exporters.precision.audit.finding import Finding
from perceiver_exporters.precision.formats import Format
from perceiver_exporters.precision.integers.plan import ComponentPlan, Plan
from perceiver_exporters.precision.integers.smooth import divisors, smooth
from perceiver_exporters.precision.options import QuantizationOptions
from perceiver_exporters.precision.planning import plan_precision
from perceiver_exporters.precision.report import ComponentPrecision
from perceiver_exporters.rules import REWRITE_RULES, Context, outcomes, rewrite
from perceiver_exporters.targets.target import TARGETS, Target
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.golden import load_golden
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.pipeline import Chunk, Pipeline, Step

Graphs = dict[str, ir.Model]


@dataclass(frozen=True)
class Fresh:
    """One component as exported now: before its precision's rewrite, and after."""

    fp32: onnx.ModelProto
    rewritten: onnx.ModelProto


def as_bundled(cut: Cut, manifest: Manifest) -> Cut:
    """The cut at the sizes for which the bundle was exported: its profile, and its chunks where it has the same."""
    steps = {step.component: step for step in manifest.pipeline.steps}
    pipeline = dataclasses.replace(
        cut.pipeline, steps=tuple(_chunked(step, steps.get(step.component)) for step in cut.pipeline.steps)
    )
    return dataclasses.replace(cut.resized(manifest.profiles[0]), pipeline=pipeline)


def can_export_again(blueprint: Blueprint, manifest: Manifest) -> bool:
    """Whether the blueprint has what its export at the bundle's precision needs: calibration data."""
    return bool(blueprint.calibration) or not PRECISIONS[manifest.precision].calibrated


def export_again(blueprint: Blueprint, bundle: Bundle, names: Collection[str], tracer: Tracer) -> Mapping[str, Fresh]:
    """The named components of a blueprint cut `as_bundled`, by the rules and the plan that the bundle names."""
    precision, target = PRECISIONS[bundle.manifest.precision], TARGETS[bundle.manifest.target]
    components = [component for component in blueprint.cut.components if component.name in names]
    traced = {c.name: _traced(blueprint.cut, c, bundle, precision, target, tracer) for c in components}
    models, options = {name: graph.model for name, graph in traced.items()}, _options(bundle)
    plan = _plan(blueprint, bundle, models, precision, target, options) if precision.planned else {}
    fresh, record = {}, precision_record(bundle)
    for component in components:
        name, graph, form = component.name, models[component.name], precision.format
        findings = _findings(traced[name], form, record.get(name)) if form is not None else ()
        request = Request(name, options.scheme(target), _planned, findings, plan.get(name))
        fp32 = ir.to_proto(_smoothed(graph, plan.get(name)))  # before the rewrite, which may change the graph in place
        fresh[name] = Fresh(fp32, ir.to_proto(precision.rewrite(graph, request)))
    return fresh


def step_differences(expected: Pipeline, got: Pipeline) -> list[tuple[str, str]]:
    """Where two pipelines run components otherwise: (component, what). Sizes of chunks are free."""
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


def _traced(
    cut: Cut, component: Component, bundle: Bundle, precision: Precision, target: Target, tracer: Tracer
) -> SizedGraph:
    """The FP32 graph after the rules that were applied to this component."""
    done = outcomes(stored_graph(bundle, bundle.manifest.component(component.name).onnx))
    applied = {outcome.rule for outcome in done if outcome.applied}
    model = tracer(component, cut.limits or cut.profile, target.opset)
    traced = SizedGraph(model, component.inputs, cut.profile)
    rewrite(traced, Context(target, precision.name), [rule for rule in REWRITE_RULES if rule.name in applied])
    return traced


def _findings(graph: SizedGraph, form: Format, recorded: ComponentPrecision | None) -> tuple[Finding, ...]:
    """Those of the graph, and those that the bundle recorded of activations, which depend on inputs of its export."""
    seen = recorded.findings if recorded is not None else ()
    return (
        *audit(graph, form),
        *(finding for finding in seen if finding.rule in ACTIVATION_RULES),
    )


def _options(bundle: Bundle) -> QuantizationOptions:
    """What of the options the bundle recorded."""
    record = precision_record(bundle)
    methods = {name: entry.calibration for name, entry in record.items() if entry.calibration}
    reduced = any(entry.reduced_range for entry in record.values())
    return QuantizationOptions(overrides=methods, smooth=False, reduce_range=reduced)


def _plan(
    blueprint: Blueprint,
    bundle: Bundle,
    traced: Graphs,
    precision: Precision,
    target: Target,
    options: QuantizationOptions,
) -> Plan:
    """Calibrated as the bundle says it was, smoothed where it says so, with the layers kept that it says were kept."""
    cut, samples, golden, scheme = blueprint.cut, blueprint.calibration, load_golden(bundle), options.scheme(target)
    plan = plan_precision(precision, cut, traced, samples, golden, scheme, options, lambda _: None)
    record = precision_record(bundle)
    return {name: _as_recorded(part, traced[name], record.get(name)) for name, part in plan.items()}


def _smoothed(graph: ir.Model, plan: ComponentPlan | None) -> ir.Model:
    """Scale migration is exact in FP32: with it, values have the scales that they have in the bundle."""
    return smooth(graph.clone(), plan.divisors) if plan is not None and plan.divisors else graph


def _as_recorded(plan: ComponentPlan, graph: ir.Model, record: ComponentPrecision | None) -> ComponentPlan:
    """What was measured to help on another machine is not measured again."""
    if record is None:
        return plan
    scales = divisors(graph, plan.statistics) if record.smoothed else {}
    return dataclasses.replace(plan, divisors=scales, kept=frozenset(record.kept))


def _planned() -> Iterator[Feeds]:
    """A plan has its statistics already."""
    return iter(())


def _chunked(step: Step, bundled: Step | None) -> Step:
    if step.chunk is None or bundled is None or _way(bundled.chunk) != _way(step.chunk):
        return step
    return dataclasses.replace(step, chunk=bundled.chunk)


def _way(chunk: Chunk | None) -> str | None:
    if chunk is None:
        return None
    return f"{chunk.dimension}, the first piece alone" if chunk.only_first else chunk.dimension
