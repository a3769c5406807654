"""Tolerances: the noise of the reference emulated in the bundle's precision, times a margin.

Exact values are the reference's in FP64. Noise is the distance of the emulated reference to them over the golden
samples, relative to the output (relative L2) and relative to the spread of the golden rows (centred). It is measured
for each component on golden inputs (teacher-forced) and for each output and encoded value of the pipeline (chained).
The margins in `perceiver_runtime.measure.tolerances` cover what the emulation does not: the order of sums, and the
kernels' approximations of erf and exp. They are constants; nothing widens a tolerance afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from perceiver_exporters.component import Cut
from perceiver_exporters.precision import Precision
from perceiver_exporters.reference import Reference, Scope
from perceiver_exporters.weights import samples_sha256
from perceiver_runtime.errors import CheckError
from perceiver_runtime.golden import GoldenSample
from perceiver_runtime.manifest import Derivation, Tolerance
from perceiver_runtime.measure.compare import distances
from perceiver_runtime.measure.parity import PIPELINE, Key, golden_arrays
from perceiver_runtime.measure.spread import Spread, spread_of
from perceiver_runtime.measure.tolerances import MAX_TOLERANCE, centred_tolerance
from perceiver_runtime.progress import track
from perceiver_runtime.tensors import Array


@dataclass(frozen=True)
class Noise:
    """Largest error over the samples, relative to the output and to the `spread` of the golden rows."""

    rel_l2: float
    centred: float
    spread: Spread


def derive(cut: Cut, golden: tuple[GoldenSample, ...], precision: Precision, scope: Scope) -> tuple[Tolerance, ...]:
    """Derive a tolerance for every graph output and every golden value.

    Args:
        cut: The model.
        golden: Golden samples of that model.
        precision: The precision, whose margins apply.
        scope: Emulation of the precision.

    Raises:
        CheckError: The emulation makes a tensor infinite or NaN, or loses it entirely.
    """
    made = tuple(_tolerance(golden, precision, key, noise) for key, noise in measure(cut, golden, scope).items())
    for tolerance in made:
        if not tolerance.rel_l2 < MAX_TOLERANCE:  # nor is NaN
            raise CheckError(_lost(cut, golden, precision, scope, tolerance))
    return made


def measure(cut: Cut, golden: tuple[GoldenSample, ...], scope: Scope) -> dict[Key, Noise]:
    """Noise by (component, graph output) and ("pipeline", output or encoded value); infinite for non-finite values."""
    reference = Reference(cut, scope=scope)
    keys = [(component.name, spec.name) for component in cut.components for spec in component.outputs]
    keys += [(PIPELINE, name) for name in sorted(cut.pipeline.shown)]
    spreads = {key: spread_of(golden_arrays(golden, *key)) for key in keys}
    noise = {key: Noise(0.0, 0.0, spread) for key, spread in spreads.items()}
    for sample in track(golden, "reference: noise and tolerances"):
        for key, exact, got in _emulated(cut, reference, sample):
            rel_l2, centred = distances(exact, got, spreads[key].rms)
            noise[key] = Noise(max(noise[key].rel_l2, rel_l2), max(noise[key].centred, centred or 0.0), spreads[key])
    return noise


def check_golden(cut: Cut, golden: Iterable[GoldenSample]) -> None:
    """Raise CheckError if the reference computes NaN or infinity, in the types in which outputs are stored."""
    for sample in golden:
        for component, call in sample.components.items():
            _check_finite(cut, sample, component, call.outputs)
        _check_finite(cut, sample, PIPELINE, sample.values)


def _emulated(cut: Cut, reference: Reference, sample: GoldenSample) -> Iterator[tuple[Key, Array, Array]]:
    """Every golden tensor with its emulation."""
    for component, call in sample.components.items():
        got = reference.apply(component, call.inputs)
        yield from (((component, tensor), exact, got[tensor]) for tensor, exact in call.outputs.items())
    values = reference.run(sample.feeds).values
    shown = cut.pipeline.shown
    yield from (((PIPELINE, name), exact, values[shown[name]]) for name, exact in sample.values.items())


def _tolerance(golden: tuple[GoldenSample, ...], precision: Precision, key: Key, noise: Noise) -> Tolerance:
    margins, (component, tensor) = precision.margins, key
    floor = margins.centred_floor(noise.spread)
    inputs = [sample.feeds if component == PIPELINE else sample.components[component].inputs for sample in golden]
    method = f"relative L2 of the reference emulated in {precision.name} to FP64"
    made = Derivation(method, samples_sha256(inputs), len(inputs), margins.margin, margins.floor, floor)
    centred = centred_tolerance(margins, noise.centred, floor)
    rel_l2 = margins.rel_l2(noise.rel_l2)
    return Tolerance(component, tensor, rel_l2, noise.rel_l2, _sentence(made), made, centred, noise.centred)


def _sentence(derivation: Derivation) -> str:
    return (
        f"{derivation.method}, largest of {derivation.samples} golden samples (sha256 "
        f"{derivation.inputs_sha256[:16]}), times {derivation.margin:g}, at least {derivation.floor:.3g}"
    )


def _lost(cut: Cut, golden: Iterable[GoldenSample], precision: Precision, scope: Scope, tolerance: Tolerance) -> str:
    """The message for a tensor whose tolerance would pass anything."""
    where = f"{tolerance.component}: {tolerance.tensor}"
    if np.isfinite(tolerance.noise):
        return (
            f"{where} in {precision.name} is {tolerance.noise:.2g} away from FP64 (relative L2): a tolerance of "
            f"{tolerance.rel_l2:.2g} would pass any answer; export in a wider precision, or calibrate with inputs like "
            "the golden ones"
        )
    layer = next(filter(None, (_layer(Reference(cut, scope=scope), tolerance.component, s) for s in golden)), "")
    return (
        f"{where} is not finite in {precision.name}: layer {layer or 'unknown'} leaves its range; "
        "export this model in fp32, or in bf16 where the target has it"
    )


def _check_finite(cut: Cut, sample: GoldenSample, component: str, arrays: Mapping[str, Array]) -> None:
    for tensor, array in arrays.items():
        if not np.isfinite(array).all():
            layer = _layer(Reference(cut), component, sample)
            raise CheckError(
                f"{component}: the reference's own {tensor} is NaN or infinite in {array.dtype.name} on golden inputs, "
                f"first in layer {layer or 'unknown'}; check the weights and the inputs"
            )


def _layer(reference: Reference, component: str, sample: GoldenSample) -> str:
    """The first layer that computes NaN or infinity."""
    if component != PIPELINE:
        return reference.nonfinite_layer(component, sample.components[component].inputs)
    for call in reference.calls(sample.feeds):
        if layer := reference.nonfinite_layer(call.component, call.inputs):
            return f"{layer} of {call.component}"
    return ""
