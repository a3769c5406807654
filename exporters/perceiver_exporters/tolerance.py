"""How far a bundle may be from the reference: what the reference itself loses in that precision, times a margin.

The exact values are the reference's in FP64; the noise is the relative L2 distance to them of the reference emulated
in the bundle's precision, over the golden samples. It is taken twice: for each component on the golden inputs
(teacher-forced), and for each output and encoded value of the whole pipeline (chained). The margins (see
`PRECISIONS`) cover what the emulation leaves open, which is the order of sums and the kernels' own approximations of
erf and exp; they are constants, and nothing loosens a tolerance afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from perceiver_exporters.component import Cut
from perceiver_exporters.precision import Precision
from perceiver_exporters.reference import Reference, Scope
from perceiver_exporters.weights import samples_sha256
from perceiver_runtime.golden import GoldenSample
from perceiver_runtime.manifest import Derivation, Tolerance
from perceiver_runtime.tensors import Array

PIPELINE = "pipeline"
Key = tuple[str, str]


def derive(cut: Cut, golden: tuple[GoldenSample, ...], precision: Precision, scope: Scope) -> tuple[Tolerance, ...]:
    """A tolerance for every graph output and every golden value, from the emulation that `scope` switches on."""
    return tuple(
        Tolerance(
            component,
            tensor,
            max(precision.margin * noise, precision.floor),
            noise,
            _sentence(derivation := _derivation(golden, component, precision)),
            derivation,
        )
        for (component, tensor), noise in measure(cut, golden, scope).items()
    )


def measure(cut: Cut, golden: tuple[GoldenSample, ...], scope: Scope) -> dict[Key, float]:
    """Noise by (component, graph output) and ("pipeline", output or encoded value): the largest over the samples."""
    reference = Reference(cut, scope=scope)
    noise: dict[Key, float] = {}
    for sample in golden:
        for component, application in sample.components.items():
            _keep_largest(noise, component, application.outputs, reference.apply(component, application.inputs))
        values = reference.run(sample.feeds).values
        _keep_largest(noise, PIPELINE, sample.values, {name: values[v] for name, v in cut.pipeline.shown.items()})
    return noise


def relative_l2(exact: Array, got: Array) -> float:
    """|got - exact| / |exact| in FP64; 0 where both are zero."""
    a, b = exact.astype(np.float64), got.astype(np.float64)
    difference = float(np.linalg.norm(b - a))
    return difference / float(np.linalg.norm(a)) if difference else 0.0


def _derivation(golden: tuple[GoldenSample, ...], component: str, precision: Precision) -> Derivation:
    inputs = [sample.feeds if component == PIPELINE else sample.components[component].inputs for sample in golden]
    method = f"relative L2 of the reference emulated in {precision.name} to FP64"
    return Derivation(method, samples_sha256(inputs), len(inputs), precision.margin, precision.floor)


def _sentence(derivation: Derivation) -> str:
    return (
        f"{derivation.method}, largest of {derivation.samples} golden samples (sha256 "
        f"{derivation.inputs_sha256[:16]}), times {derivation.margin:g}, at least {derivation.floor:.3g}"
    )


def _keep_largest(
    noise: dict[Key, float], component: str, exact: Mapping[str, Array], got: Mapping[str, Array]
) -> None:
    for tensor, array in exact.items():
        key = (component, tensor)
        noise[key] = max(noise.get(key, 0.0), relative_l2(array, got[tensor]))
