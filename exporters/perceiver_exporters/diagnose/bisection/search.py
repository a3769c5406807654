"""`bisect`: from the golden samples of a bundle to the node that differs from its source."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from perceiver_exporters.component import Blueprint
from perceiver_exporters.diagnose.bisection.claims import Breach, check_claims
from perceiver_exporters.diagnose.bisection.diagnosis import Bisection, Diagnosis
from perceiver_exporters.diagnose.bisection.node import ComponentGraphs
from perceiver_exporters.diagnose.bisection.recorded_export import (
    as_bundled,
    can_export_again,
    export_again,
    step_differences,
)
from perceiver_exporters.exporter import Tracer
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.precision.widen import runnable_bundle
from perceiver_exporters.reference import Reference
from perceiver_runtime.bundle import Bundle, load_bundle
from perceiver_runtime.golden import load_golden
from perceiver_runtime.measure.compare import ParityReport
from perceiver_runtime.measure.parity import PIPELINE
from perceiver_runtime.measure.verify import verify
from perceiver_runtime.progress import report


def bisect(
    path: Path,
    blueprint: Blueprint | None,
    *,
    backend: str = "auto",
    replays: Path | None = None,
    tracer: Tracer = trace,
) -> Bisection:
    """Find where a bundle differs from its source: the component by its golden samples, the node by fresh exports.

    A bundle that passes verification is searched too: graphs may differ by less than their tolerances.

    Args:
        path: The bundle.
        blueprint: Its source. Without one (None), or without the calibration data that its precision needs, the search
            ends at the component.
        backend: Backend of the verification; nodes are compared with ONNX Runtime.
        replays: Directory under which a replay of each differing node is written (None: none is).
        tracer: Traces a component.

    Returns:
        The first differing node of each component that differs.

    Raises:
        BundleError: The bundle is damaged.
        UnavailableError: The graphs can't be run on this machine.
        CheckError: The source can't be traced.
    """
    bundle = load_bundle(path)
    report("verify against the golden samples")
    with runnable_bundle(bundle, backend) as runnable:
        failed = [each for each in verify(runnable, backend).reports if not each.passed]
    breaches = check_claims(bundle)
    accused = (*(r.component for r in failed), *(b.component for b in breaches))
    blamed = tuple(name for name in dict.fromkeys(accused) if name != PIPELINE)
    if blueprint is None or not can_export_again(blueprint, bundle.manifest):
        names = blamed or tuple(dict.fromkeys(accused))
        return Bisection(tuple(_component(name, failed, breaches) for name in names), 0)
    given = dataclasses.replace(blueprint, cut=as_bundled(blueprint.cut, bundle.manifest))
    names = blamed or tuple(component.name for component in given.cut.components)
    report(f"export {', '.join(names)} again")
    fresh = export_again(given, bundle, names, tracer)
    graphs = {name: ComponentGraphs(bundle, name, exported) for name, exported in fresh.items()}
    report(f"compare {_count_values(graphs)} values")
    found = (
        *_on_golden_inputs(bundle, graphs, replays),
        *(Diagnosis(c, "step", why) for c, why in step_differences(given.cut.pipeline, bundle.manifest.pipeline)),
    )
    if failed and not found:
        report("compare every repetition and chunk")
        found = tuple(_on_later_inputs(given, bundle, graphs, replays)) or tuple(_unexplained(failed, backend))
    return Bisection(found or tuple(_component(b.component, (), (b,)) for b in breaches), _count_values(graphs))


def _on_golden_inputs(
    bundle: Bundle, graphs: Mapping[str, ComponentGraphs], replays: Path | None
) -> Iterator[Diagnosis]:
    """Each component on the inputs of its golden samples, until one differs."""
    samples = load_golden(bundle)
    for name, graph in graphs.items():
        departures = (graph.departed(sample.components[name].inputs, 0, replays) for sample in samples)
        if diagnosis := next(filter(None, departures), None) or graph.unlike():
            yield diagnosis


def _on_later_inputs(
    blueprint: Blueprint, bundle: Bundle, graphs: Mapping[str, ComponentGraphs], replays: Path | None
) -> Iterator[Diagnosis]:
    """The first call of the reference, a repetition or later chunk, on whose inputs a component differs."""
    reference = Reference(blueprint.cut, torch.float64)
    for sample in load_golden(bundle):
        runs: Counter[str] = Counter()
        for call in reference.calls(sample.feeds):
            name = call.component
            specs = blueprint.cut.component(name).inputs
            inputs = {spec.name: call.inputs[spec.name].astype(spec.dtype) for spec in specs}
            if name in graphs and (diagnosis := graphs[name].departed(inputs, runs[name], replays)):
                yield diagnosis
                return
            runs[name] += 1


def _unexplained(failed: Sequence[ParityReport], backend: str) -> Iterator[Diagnosis]:
    """Verification failed, although every graph is right without backend optimisations."""
    names = tuple(dict.fromkeys(r.component for r in failed if r.component != PIPELINE)) or (PIPELINE,)
    for name in names:
        yield Diagnosis(
            name, "backend", f"every node is right without optimisations; backend {backend} differs with them"
        )


def _component(name: str, failed: Sequence[ParityReport], breaches: Sequence[Breach]) -> Diagnosis:
    """The component alone, where its source is unknown."""
    worst = max((r for r in failed if r.component == name), key=lambda r: r.excess, default=None)
    whys = [str(breach) for breach in breaches if breach.component == name]
    if worst is None:
        return Diagnosis(
            name, "component", "; ".join(whys), next((b.node for b in breaches if b.component == name), "")
        )
    whys.append(f"{worst.tensor} fails on reference inputs" if name != PIPELINE else f"{worst.tensor} fails, chained")
    error, bound = worst.decisive
    return Diagnosis(name, "component", "; ".join(whys), tensor=worst.tensor, error=error, bound=bound)


def _count_values(graphs: Mapping[str, ComponentGraphs]) -> int:
    return sum(graph.compared for graph in graphs.values())
