"""Shapes and sizes of the values of a pipeline at the profile's `opt` sizes."""

from __future__ import annotations

import math
from typing import cast

import numpy as np

from perceiver_exporters.component import Cut
from perceiver_runtime.format.wiring import bind_symbols
from perceiver_runtime.tensors import TensorSpec

Shape = tuple[int, ...]


def step_shapes(cut: Cut) -> tuple[dict[str, Shape], ...]:
    """For each step, the shapes of its graph inputs by name, not chunked."""
    return tuple(inputs for inputs, _ in _walk(cut))


def value_bytes(cut: Cut) -> dict[str, int]:
    """Bytes of each value of the pipeline, not chunked."""
    specs = {spec.name: TensorSpec(spec.name, spec.dtype, cut.profile.shapes(spec)[1]) for spec in cut.pipeline.inputs}
    for _, made in _walk(cut):
        specs |= made
    return {name: math.prod(cast(Shape, spec.shape)) * np.dtype(spec.dtype).itemsize for name, spec in specs.items()}


def _walk(cut: Cut) -> list[tuple[dict[str, Shape], dict[str, TensorSpec]]]:
    """For each step, the shapes of its graph inputs and the specs of the values that it computes."""
    shapes: dict[str, Shape] = {spec.name: cut.profile.shapes(spec)[1] for spec in cut.pipeline.inputs}
    walked = []
    for step in cut.pipeline.steps:
        component = cut.component(step.component)
        inputs = {name: shapes[value] for name, value in step.inputs.items()}
        sizes = cast(dict[str, int], bind_symbols(component.inputs, inputs, step.component))
        outputs = {spec.name: spec for spec in component.outputs}
        made = {
            value: TensorSpec(value, outputs[name].dtype, outputs[name].resolve(sizes))
            for name, value in step.outputs.items()
        }
        shapes |= {value: cast(Shape, spec.shape) for value, spec in made.items()}
        walked.append((inputs, made))
    return walked
