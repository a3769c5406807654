"""Decides how each component will be quantised: its ranges, and smoothing where that is measured to help."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir

from perceiver_exporters.component import Cut
from perceiver_exporters.precision import dynamic
from perceiver_exporters.precision.calibration.calibrate import calibrate
from perceiver_exporters.precision.emulation import quantized
from perceiver_exporters.precision.integers.layers import layer_of, weighted
from perceiver_exporters.precision.integers.plan import ComponentPlan, Plan
from perceiver_exporters.precision.integers.smooth import divisors
from perceiver_exporters.precision.options import QuantizationOptions
from perceiver_exporters.precision.precision import Feeds, Precision
from perceiver_exporters.reference import Reference, in_double
from perceiver_runtime.golden import ComponentCall, GoldenSample
from perceiver_runtime.measure.compare import relative_l2

Progress = Callable[[str], None]
MIN_GAIN = 0.01
"""Least share of a component's error that scale migration must take away. Less may be chance."""


def plan_precision(
    precision: Precision,
    cut: Cut,
    graphs: Mapping[str, ir.Model],
    samples: Sequence[Feeds],
    golden: Sequence[GoldenSample],
    scheme: str,
    options: QuantizationOptions,
    progress: Progress,
) -> Plan:
    """What is to be decided of a planned precision; ranges, if it is calibrated, measured in FP64: alike on every
    processor. Raises what `make_plan` raises.
    """
    if precision.calibrated:
        return make_plan(in_double(cut), graphs, samples, golden, scheme, options, progress)
    plan = {name: dynamic.make_plan(graph) for name, graph in graphs.items()}
    for name, layer in ((name, layer) for name, each in plan.items() for layer in sorted(each.kept)):
        progress(f"{name}: convolution {layer} kept in FP32, where it is faster than in integers without a fixed range")
    return plan


def make_plan(
    cut: Cut,
    graphs: Mapping[str, ir.Model],
    samples: Sequence[Feeds],
    golden: Sequence[GoldenSample],
    scheme: str,
    options: QuantizationOptions,
    progress: Progress,
) -> Plan:
    """A plan of every component from its FP32 graph. Raises what `calibrate` raises."""
    statistics = calibrate(cut, graphs, samples, options.cache, progress)
    plan = {}
    for name, graph in graphs.items():
        layers = frozenset(layer_of(node) for node in weighted(graph.graph))
        plain = ComponentPlan(statistics[name], options.method(name), layers=layers)
        calls = [sample.components[name] for sample in golden]
        plan[name] = _smoothed(cut, graph, plain, calls, scheme, progress) if options.smooth and golden else plain
    return plan


def _smoothed(
    cut: Cut,
    graph: ir.Model,
    plain: ComponentPlan,
    calls: Sequence[ComponentCall],
    scheme: str,
    progress: Progress,
) -> ComponentPlan:
    """The plan with scale migration if that is nearer to the golden outputs, or as it is."""
    scales = divisors(graph, plain.statistics)
    if not scales:
        return plain
    candidate = dataclasses.replace(plain, divisors=scales)
    name = str(graph.graph.name)
    before, after = (_error(cut, name, each, calls, scheme) for each in (plain, candidate))
    better = after < before * (1 - MIN_GAIN)
    verdict = "smoothed" if better else "not smoothed"
    progress(f"{name}: {verdict}: error {after:.2e} with scale migration, {before:.2e} without")
    return candidate if better else plain


def _error(cut: Cut, component: str, plan: ComponentPlan, calls: Sequence[ComponentCall], scheme: str) -> float:
    """Largest relative L2 distance of a component's outputs from golden ones, as the emulation computes them."""
    reference = Reference(cut, scope=quantized(cut, (), scheme, {component: plan}))
    return max(
        relative_l2(exact, got[name])
        for call in calls
        for got in [reference.apply(component, call.inputs)]
        for name, exact in call.outputs.items()
    )
