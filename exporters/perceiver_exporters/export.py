"""From a blueprint to a bundle: trace, rewrite, prove, measure, write."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from perceiver_exporters import tolerance
from perceiver_exporters.bundle.sealing import files_of, seal, tool_versions
from perceiver_exporters.bundle.storage import save_graphs
from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.ir.flops import flops, parameters
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.ir.value_ranges import with_float_ranges, with_index_ranges
from perceiver_exporters.precision import PRECISIONS, Feeds, Precision, Request
from perceiver_exporters.precision.audit.activations import audit_activations
from perceiver_exporters.precision.audit.constants import audit
from perceiver_exporters.precision.audit.finding import Finding, refuse
from perceiver_exporters.precision.integers.layers import kept_nodes
from perceiver_exporters.precision.integers.plan import Plan
from perceiver_exporters.precision.kernels import prove_kernels
from perceiver_exporters.precision.options import DEFAULTS, QuantizationOptions, require
from perceiver_exporters.precision.pareto import save_pareto
from perceiver_exporters.precision.placement import EXACT, Pareto, Trial, search
from perceiver_exporters.precision.planning import plan_precision
from perceiver_exporters.precision.proof import prove
from perceiver_exporters.precision.report import ComponentPrecision, save_report
from perceiver_exporters.reference import Reference, in_double
from perceiver_exporters.rules import REWRITE_RULES, Context, RewriteRule, rewrite
from perceiver_exporters.samples import make_samples, save_samples
from perceiver_exporters.targets.target import TARGETS, Target
from perceiver_runtime.bundle import write_manifest
from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.staging import check_destination, staged
from perceiver_runtime.golden import GoldenSample
from perceiver_runtime.manifest import SCHEMA_VERSION, ComponentEntry, Manifest
from perceiver_runtime.measure.tolerances import is_indistinct
from perceiver_runtime.tensors import Profile

Progress = Callable[[str], None]
Tracer = Callable[[Component, Profile, int], ir.Model]
Graphs = dict[str, ir.Model]
Traced = dict[str, SizedGraph]


def export_bundle(
    blueprint: Blueprint,
    destination: Path,
    precision: str = "fp32",
    target: str = "cpu",
    *,
    overwrite: bool = False,
    progress: Progress = lambda _: None,
    tracer: Tracer = trace,
    rules: Sequence[RewriteRule] = REWRITE_RULES,
    quantization: QuantizationOptions = DEFAULTS,
) -> Manifest:
    """Write the bundle of a model at one precision for one target, whole or not at all, and return its manifest.

    Exports of one blueprint at several precisions may share a `SharedTraces` as their `tracer`. `rules` rewrite each
    traced graph before its precision does; none leaves it as traced. `quantization` says how int8 is calibrated, and
    what accuracy it may cost; it says the latter of int8-dynamic too, and of both how many bits weights have.

    Two exports of the same blueprint give the same bytes; on two processors, the same decisions and, within FP32's
    rounding, the same scales: what decides how integers are placed is measured in FP64. Raises UsageError (unknown or
    unsuited precision or target, existing destination, int8 without calibration data), CheckError (a component can't
    be traced, its graph is not in the asked precision or leaves its range, its answers are not finite or are lost in
    that precision, or its accuracy budget can't be held), OSError (the disk).
    """
    place, chosen = require(TARGETS, target, precision)
    quantization.require(place, chosen)
    require_data(blueprint, chosen, quantization)
    check_destination(destination, overwrite=overwrite)
    traced = _trace(blueprint.cut, chosen, place, progress, tracer, rules)
    progress("reference: golden samples in FP64")
    measured = dataclasses.replace(blueprint, cut=in_double(blueprint.cut)) if chosen.planned else blueprint
    golden = make_samples(measured.cut, blueprint.golden)
    tolerance.check_golden(measured.cut, golden)
    samples = (*blueprint.golden, *blueprint.calibration)
    findings = _audit(blueprint.cut, traced, chosen, samples, progress)
    draft = _draft(blueprint, traced, chosen, place)
    models = _models(traced)
    plan, pareto = _plan(measured, models, findings, golden, draft, quantization, progress)
    scheme = quantization.scheme(place)
    graphs = _rewrite(blueprint, models, findings, plan, chosen, scheme, progress)
    progress("reference: noise and tolerances")
    scope = chosen.emulate(measured.cut, blueprint.calibration, scheme, plan or None)
    tolerances = tolerance.derive(measured.cut, golden, chosen, scope)
    for each in filter(is_indistinct, tolerances):
        progress(
            f"{each.component}: {each.tensor}: golden rows differ by less than {chosen.name} may lose (centred noise "
            f"{each.centred_noise:.2g}): nothing will show that it follows the input"
        )
    progress(f"write {destination}")
    with staged(destination, overwrite=overwrite) as directory:
        report = _prove(blueprint.cut, graphs, findings, plan, chosen, place, quantization.reduce_range)
        save_report(report, directory)
        save_graphs(graphs, directory)
        if pareto is not None:
            save_pareto(pareto, directory)
        manifest = dataclasses.replace(
            with_float_ranges(draft, graphs),
            tolerances=tolerances,
            golden=save_samples(golden, directory),
        )
        return seal(manifest, directory)


def component_graphs(
    blueprint: Blueprint,
    precision: Precision,
    target: Target,
    *,
    tracer: Tracer = trace,
    rules: Sequence[RewriteRule] = REWRITE_RULES,
) -> tuple[Graphs, Plan]:
    """The graphs of an export, and how they were quantised: with the default options and, without golden samples to
    measure it on, no scale migration. Raises what `export_bundle` raises.
    """

    def silent(_: str) -> None:
        pass

    traced = _trace(blueprint.cut, precision, target, silent, tracer, rules)
    inputs = (*blueprint.golden, *blueprint.calibration)
    findings = _audit(blueprint.cut, traced, precision, inputs, silent)
    plan: Plan = {}
    if precision.planned:
        samples, scheme = blueprint.calibration, target.quantization
        plan = plan_precision(precision, blueprint.cut, _models(traced), samples, (), scheme, DEFAULTS, silent)
    return _rewrite(blueprint, _models(traced), findings, plan, precision, target.quantization, silent), plan


def require_data(blueprint: Blueprint, precision: Precision, quantization: QuantizationOptions) -> None:
    """Raise UsageError for calibration data that is missing, and for unknown methods and components."""
    if precision.calibrated and not blueprint.calibration:
        raise UsageError(
            f"{precision.name} takes its ranges from real inputs, and {blueprint.source.name} has no calibration data; "
            "export fp32, fp16 or int8-dynamic, or give the model a data set"
        )
    quantization.check(tuple(component.name for component in blueprint.cut.components))


def _trace(
    cut: Cut, precision: Precision, target: Target, progress: Progress, tracer: Tracer, rules: Sequence[RewriteRule]
) -> Traced:
    """The FP32 graph of each component."""
    traced = {}
    for component in cut.components:
        progress(f"{component.name}: trace")
        model = tracer(component, cut.limits or cut.profile, target.opset)
        traced[component.name] = SizedGraph(model, component.inputs, cut.profile)
        rewrite(traced[component.name], Context(target, precision.name), rules)
    return traced


def _models(traced: Traced) -> Graphs:
    return {name: graph.model for name, graph in traced.items()}


def _audit(
    cut: Cut, traced: Traced, precision: Precision, samples: Sequence[Feeds], progress: Progress
) -> dict[str, tuple[Finding, ...]]:
    """What in each graph leaves the precision's range, by its constants or by what the samples make of it.

    Raises CheckError if a finding refuses.
    """
    if precision.format is None:
        return dict.fromkeys(traced, ())
    found = {name: audit(graph, precision.format) for name, graph in traced.items()}
    refuse(each for findings in found.values() for each in findings)
    loud = audit_activations(cut, _models(traced), found, precision.format, samples)
    found = {name: (*findings, *loud[name]) for name, findings in found.items()}
    for finding in (each for findings in found.values() for each in findings):
        progress(str(finding))
    return found


def _plan(
    blueprint: Blueprint,
    traced: Graphs,
    findings: Mapping[str, tuple[Finding, ...]],
    golden: tuple[GoldenSample, ...],
    draft: Manifest,
    options: QuantizationOptions,
    progress: Progress,
) -> tuple[Plan, Pareto | None]:
    """How each component is quantised, and what a search for the layers to keep has found."""
    target, precision = TARGETS[draft.target], PRECISIONS[draft.precision]
    cut, scheme = blueprint.cut, options.scheme(target)
    if not precision.planned:
        return {}, None
    plan = plan_precision(precision, cut, traced, blueprint.calibration, golden, scheme, options, progress)
    if options.budget is None:
        return plan, None

    def write(tried: Plan, directory: Path) -> None:
        save_graphs(_rewrite(blueprint, traced, findings, tried, precision, scheme, lambda _: None), directory)
        write_manifest(directory, dataclasses.replace(draft, files=files_of(directory)))

    trial = Trial(write, "onnxruntime" if target.engines is None else EXACT)
    return search(cut, traced, plan, golden, precision.emulate, scheme, options.budget, trial, progress)


def _rewrite(
    blueprint: Blueprint,
    traced: Graphs,
    findings: Mapping[str, tuple[Finding, ...]],
    plan: Plan,
    precision: Precision,
    scheme: str,
    progress: Progress,
) -> Graphs:
    graphs = {}
    for name, model in traced.items():
        progress(f"{name}: {precision.name}")
        stream = functools.partial(_calibration, blueprint, name)
        request = Request(name, scheme, stream, findings[name], plan.get(name))
        graphs[name] = precision.rewrite(model, request)
    return graphs


def _prove(
    cut: Cut,
    graphs: Graphs,
    findings: Mapping[str, tuple[Finding, ...]],
    plan: Plan,
    precision: Precision,
    target: Target,
    reduced_range: bool,
) -> tuple[ComponentPrecision, ...]:
    """What each graph holds, and what ONNX Runtime makes of it. Raises CheckError where that is not what was asked."""
    report = []
    for component in cut.components:
        graph, planned = graphs[component.name], plan.get(component.name)
        protected = frozenset(finding.node for finding in findings[component.name])
        kept = protected | (kept_nodes(graph.graph, planned.kept) if planned is not None else frozenset())
        sized = SizedGraph(graph, component.inputs, cut.profile)
        proof = prove(sized, precision, kept)
        kernels = prove_kernels(sized, precision.name, target, kept)
        report.append(
            ComponentPrecision(
                component.name,
                proof.weighted,
                proof.overall,
                kernels,
                planned.method if planned is not None else "",
                bool(planned is not None and planned.divisors),
                tuple(sorted(planned.kept)) if planned is not None else (),
                findings[component.name],
                reduced_range,
            )
        )
    return tuple(report)


def _draft(blueprint: Blueprint, traced: Traced, precision: Precision, target: Target) -> Manifest:
    """All of the manifest that is known before anything is quantised."""
    cut = blueprint.cut
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        source=blueprint.source,
        precision=precision.name,
        target=target.name,
        opset=target.opset,
        components=tuple(_entry(component, traced[component.name], precision) for component in cut.components),
        pipeline=cut.pipeline,
        profiles=(cut.profile,),
        tolerances=(),
        golden=(),
        tools=tool_versions(),
        files={},
        labels=blueprint.labels,
        golden_origin=blueprint.golden_origin,
    )
    return with_index_ranges(manifest, _models(traced), blueprint.golden)


def _entry(component: Component, traced: SizedGraph, precision: Precision) -> ComponentEntry:
    return ComponentEntry(
        name=component.name,
        onnx=f"onnx/{component.name}.onnx",
        inputs=component.inputs,
        outputs=component.outputs,
        precision=precision.name,
        parameters=parameters(traced.model),
        flops=flops(traced),
    )


def _calibration(blueprint: Blueprint, component: str) -> Iterator[Feeds]:
    """The component's reference inputs over the calibration set: every repetition and piece, one at a time."""
    reference = Reference(blueprint.cut)
    for feeds in blueprint.calibration:
        yield from (a.inputs for a in reference.calls(feeds) if a.component == component)
