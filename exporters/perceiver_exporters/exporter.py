"""The path from a model cut into components to a bundle.

`STAGES` are the steps from a component to its graph. Every use of the path (export, dry run, bisection, placement
trials, benchmarks) runs these stages of an `Exporter`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import onnx_ir as ir

from perceiver_exporters import tolerance
from perceiver_exporters.bundle.draft import draft_manifest
from perceiver_exporters.bundle.sealing import files_of, seal
from perceiver_exporters.bundle.storage import save_graphs
from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.ir.value_ranges import with_float_ranges
from perceiver_exporters.precision import Graphs, Measured, Precision, Request
from perceiver_exporters.precision.adopted import check_quantizers, refuse_quantized, refuse_uncalibrated
from perceiver_exporters.precision.audit.activations import Findings, audit_activations
from perceiver_exporters.precision.audit.constants import audit
from perceiver_exporters.precision.audit.finding import refuse
from perceiver_exporters.precision.integers.plan import Plan
from perceiver_exporters.precision.integers.scheme import Scheme
from perceiver_exporters.precision.options import DEFAULTS, QuantizationOptions
from perceiver_exporters.precision.placement.pareto import save_pareto
from perceiver_exporters.precision.placement.search import EXACT, Trial, search
from perceiver_exporters.precision.proof.kernels import prove_kernels
from perceiver_exporters.precision.proof.operands import prove
from perceiver_exporters.precision.record import ComponentPrecision, nodes_in_fp32, save_record
from perceiver_exporters.records import ComponentRecord, Records
from perceiver_exporters.reference import Feeds, Reference, in_double
from perceiver_exporters.rules import REWRITE_RULES, Context, RewriteRule, rewrite
from perceiver_exporters.samples import make_samples, save_samples
from perceiver_exporters.stream import FeedStream, Unchanging
from perceiver_exporters.targets.target import Target
from perceiver_runtime.bundle import write_manifest
from perceiver_runtime.format.staging import check_destination, staged
from perceiver_runtime.golden import GoldenSample
from perceiver_runtime.manifest import Manifest, Tolerance
from perceiver_runtime.measure.tolerances import is_indistinct
from perceiver_runtime.progress import report, track
from perceiver_runtime.tensors import Profile

Tracer = Callable[[Component, Profile, int], ir.Model]


@dataclass(frozen=True)
class Stage:
    """One step from components to their graphs.

    Attributes:
        run: Completes the records of all components.
        check: Raises what can be known before anything is traced; all that a dry run runs of a stage.
        repeated: Whether each trial of a placement search runs it again, with the trial's plan.
    """

    name: str
    run: Callable[[Exporter, Records], Records]
    check: Callable[[Exporter], None] = lambda _: None
    repeated: bool = False


@dataclass(frozen=True)
class Exporter:
    """The export of one model at one precision for one target.

    Attributes:
        blueprint: The model, cut into components, with golden inputs and calibration data.
        precision: The precision of the bundle.
        target: Where the bundle is to run.
        quantization: How int8 is calibrated, how many bits weights have, what accuracy may be lost.
        tracer: Traces a component; exports of one blueprint at several precisions may share a `SharedTraces`.
        rules: Rewrite rules that each traced graph passes, in order; none leaves it as traced.
    """

    blueprint: Blueprint
    precision: Precision
    target: Target
    quantization: QuantizationOptions = DEFAULTS
    tracer: Tracer = field(default=trace)
    rules: Sequence[RewriteRule] = REWRITE_RULES

    @property
    def cut(self) -> Cut:
        """The model's components and pipeline."""
        return self.blueprint.cut

    @cached_property
    def calibration(self) -> FeedStream:
        """The blueprint's calibration inputs; a pass over them raises DatasetError if they have changed."""
        return Unchanging(self.blueprint.calibration, "calibration data")

    @cached_property
    def measured_cut(self) -> Cut:
        """The cut that decisions are measured on: in FP64 if there are any, to be alike on all processors."""
        return in_double(self.cut) if self.precision.planned else self.cut

    @cached_property
    def golden(self) -> tuple[GoldenSample, ...]:
        """Golden samples: the reference's answers in FP64. Raises CheckError for NaN and infinity."""
        feeds = track(self.blueprint.golden, "reference: golden samples in FP64")
        samples = make_samples(self.measured_cut, feeds)
        tolerance.check_golden(self.measured_cut, samples)
        return samples

    @property
    def scheme(self) -> Scheme:
        """The integers of the target's kernels."""
        return self.quantization.scheme(self.target)

    def check(self) -> None:
        """Raise UsageError for whatever can be refused before anything is traced: options, missing data."""
        self.precision.check(self.quantization, self.target)
        if self.precision.calibrated and not self.blueprint.calibration:
            check_quantizers(self.precision, self.blueprint.source, self.cut, self.blueprint.golden[:1])
        self.quantization.check(tuple(component.name for component in self.cut.components))
        for stage in STAGES:
            stage.check(self)

    def records(self, components: Sequence[str] = ()) -> Records:
        """The graphs of these components (none named: all, which a placement search needs), after all stages.

        Raises:
            UsageError: See `check`.
            CheckError: A component can't be traced, or has no graph in the precision.
        """
        self.check()
        chosen = [c for c in self.cut.components if not components or c.name in components]
        records = Records({component.name: ComponentRecord(component) for component in chosen})
        for stage in STAGES:
            records = stage.run(self, records)
        return records

    def export(self, destination: Path, *, overwrite: bool = False) -> Manifest:
        """Write the bundle, whole or not at all. See `export_bundle`."""
        check_destination(destination, overwrite=overwrite)
        records = self.records()
        tolerances = self.tolerances(records)
        report(f"write {destination}")
        with staged(destination, overwrite=overwrite) as directory:
            save_record([self.prove(record) for record in records.components.values()], directory)
            save_graphs(records.graphs, directory)
            if records.pareto is not None:
                save_pareto(records.pareto, directory)
            draft = draft_manifest(self.blueprint, records.fp32, self.precision.name, self.target)
            manifest = with_float_ranges(draft, records.graphs)
            golden = save_samples(self.golden, directory)
            return seal(dataclasses.replace(manifest, tolerances=tolerances, golden=golden), directory)

    def tolerances(self, records: Records) -> tuple[Tolerance, ...]:
        """What the model itself loses in the precision, times a margin. Raises CheckError where it loses all."""
        cut, precision = self.measured_cut, self.precision
        scope = precision.emulate(cut, self.calibration, self.scheme, records.plan or None)
        derived = tolerance.derive(cut, self.golden, precision, scope)
        for each in filter(is_indistinct, derived):
            report(
                f"{each.component}: {each.tensor}: golden rows differ by less than {precision.name} may lose (centred "
                f"noise {each.centred_noise:.2g}): nothing will show that it follows the input"
            )
        return derived

    def trace(self, records: Records) -> Records:
        """Stage: the FP32 graph of each component."""

        def traced(record: ComponentRecord) -> ComponentRecord:
            report(f"{record.component.name}: trace")
            component, profile = record.component, self.cut.profile
            model = self.tracer(component, self.cut.limits or profile, self.target.opset)
            refuse_quantized(model, self.precision)
            return dataclasses.replace(record, fp32=SizedGraph(model, component.inputs, profile))

        return records.update(traced)

    def rewrite(self, records: Records) -> Records:
        """Stage: rewrite rules."""
        for name, graph in records.fp32.items():
            rewrite(graph, Context(self.target, self.precision.name), self.rules_for(name))
        return records

    def rules_for(self, component: str) -> Sequence[RewriteRule]:
        """The rewrite rules of one component."""
        return self.rules

    def audit(self, records: Records) -> Records:
        """Stage: what in each graph leaves the precision's range, by its constants or on golden and calibration inputs.

        Raises:
            CheckError: A finding refuses the precision.
        """
        form = self.precision.format
        if form is None:
            return records
        static = {name: audit(graph, form) for name, graph in records.fp32.items()}
        refuse(finding for findings in static.values() for finding in findings)
        seen = self.audit_inputs(records.models, static)
        found = {name: (*static[name], *seen[name]) for name in static}
        for finding in (each for findings in found.values() for each in findings):
            report(str(finding))
        return records.update(lambda r: dataclasses.replace(r, findings=found[r.component.name]))

    def audit_inputs(self, graphs: Graphs, static: Findings) -> Findings:
        """Findings beyond the `static` ones, on what golden and calibration inputs make of the graphs."""
        form = self.precision.format
        assert form is not None  # else there is nothing to audit
        samples = itertools.chain(self.blueprint.golden, self.calibration)
        return audit_activations(self.cut, graphs, static, form, samples)

    def quantize(self, records: Records) -> Records:
        """Stage: how each component is quantised: calibration, scale migration."""
        if self.precision.calibrated and not self.blueprint.calibration:
            refuse_uncalibrated(self.blueprint.source.name, records.models)
        golden = self.golden if self.precision.planned and self.quantization.smooth else ()
        measured = Measured(self.measured_cut, records.models, self.calibration, golden)
        statistics = self.precision.calibrate(measured, self.quantization)
        plan = self.precision.plan(measured, statistics, self.scheme, self.quantization)
        return records.planned(plan)

    def place(self, records: Records) -> Records:
        """Stage: layers that stay in FP32 to hold the accuracy budget, if there is one."""
        budget = self.quantization.budget
        if budget is None:
            return records

        draft = draft_manifest(self.blueprint, records.fp32, self.precision.name, self.target)

        def write(plan: Plan, directory: Path) -> None:
            tried = records.planned(plan)
            for stage in STAGES:
                tried = stage.run(self, tried) if stage.repeated else tried
            save_graphs(tried.graphs, directory)
            write_manifest(directory, dataclasses.replace(draft, files=files_of(directory)))

        trial = Trial(write, "onnxruntime" if self.target.engines is None else EXACT)
        measured = Measured(self.measured_cut, records.models, self.calibration, self.golden)
        plan, pareto = search(measured, records.plan, self.precision, self.scheme, budget, trial)
        return dataclasses.replace(records.planned(plan), pareto=pareto)

    def lower(self, records: Records) -> Records:
        """Stage: the graph of each component in the precision."""

        def lowered(record: ComponentRecord) -> ComponentRecord:
            assert record.fp32 is not None  # the stage before
            name = record.component.name
            report(f"{name}: {self.precision.name}")
            request = Request(name, self.scheme, lambda: self._calibration(name), record.findings, record.plan)
            return dataclasses.replace(record, graph=self.precision.rewrite(record.fp32.model.clone(), request))

        return records.update(lowered)

    def prove(self, record: ComponentRecord) -> ComponentPrecision:
        """What the graph holds, and what ONNX Runtime makes of it. Raises CheckError if that is not what was asked."""
        component, plan, graph = record.component, record.plan, record.graph
        assert graph is not None  # made by the stages
        layers = plan.kept if plan is not None else frozenset[str]()
        kept = nodes_in_fp32(graph.graph, layers, record.findings)
        sized = SizedGraph(graph, component.inputs, self.cut.profile)
        proof = prove(sized, self.precision, kept)
        return ComponentPrecision(
            component.name,
            proof.weighted,
            proof.overall,
            prove_kernels(sized, self.precision.name, self.target, kept),
            plan.method if plan is not None else "",
            bool(plan is not None and plan.divisors),
            tuple(sorted(layers)),
            record.findings,
            self.quantization.reduce_range,
            tuple(sorted(plan.attention - plan.kept)) if plan is not None else (),
        )

    def _calibration(self, component: str) -> Iterator[Feeds]:
        """The component's reference inputs over the calibration set: every repetition and chunk, one at a time."""
        reference = Reference(self.cut)
        for feeds in self.calibration:
            yield from (a.inputs for a in reference.calls(feeds) if a.component == component)


STAGES: tuple[Stage, ...] = (
    Stage("trace", lambda exporter, records: exporter.trace(records)),
    Stage("rewrite", lambda exporter, records: exporter.rewrite(records)),
    Stage("audit", lambda exporter, records: exporter.audit(records)),
    Stage("quantize", lambda exporter, records: exporter.quantize(records)),
    Stage("place", lambda exporter, records: exporter.place(records)),
    Stage("lower", lambda exporter, records: exporter.lower(records), repeated=True),
)
