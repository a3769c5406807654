"""Estimated memory of a session, before tracing, and chunk sizes that keep it within a limit.

Each component is run on the meta device, and ONNX Runtime's arena is simulated for its values (see
`perceiver_exporters.memory.liveness`). A session holds the weights, the values between steps, and for every component
the peak of its calls, which the arena does not return.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from perceiver_exporters.component import Component, Cut
from perceiver_exporters.memory.liveness import peak
from perceiver_exporters.shapes import Shape, step_shapes, value_bytes
from perceiver_runtime.errors import UsageError
from perceiver_runtime.pipeline import Step
from perceiver_runtime.tensors import Range

PROCESS = 95_000_000
"""Bytes of interpreter, NumPy and ONNX Runtime: 74 MB with small models, more with large ones."""

Peaks = dict[tuple[str, tuple[Shape, ...]], int]
"""Bytes by name of the component and shapes of its inputs."""


@dataclass(frozen=True)
class MemoryEstimate:
    """Estimated memory of a session at the profile's `opt` sizes, in bytes.

    Attributes:
        weights: Trained parameters and buffers.
        values: Values between steps.
        components: Peak of each component's calls.
        chunks: Chunk sizes by dimension for which this is estimated.
    """

    weights: int
    values: int
    components: Mapping[str, int]
    chunks: Mapping[str, int]

    @property
    def total(self) -> int:
        """Estimated peak of the process."""
        return PROCESS + self.weights + self.values + sum(self.components.values())

    def __str__(self) -> str:
        largest = max(self.components, key=lambda name: self.components[name])
        chunks = ", ".join(f"{size} {dimension}" for dimension, size in self.chunks.items())
        parts = (
            f"weights {self.weights / 1e6:,.0f}",
            f"values {self.values / 1e6:,.0f}",
            f"largest component {largest} {self.components[largest] / 1e6:,.0f}",
        )
        chunked = f", in chunks of {chunks}" if chunks else ""
        return f"{self.total / 1e6:,.0f} MB expected for a run in fp32 ({', '.join(parts)}){chunked}"


def estimate(cut: Cut) -> MemoryEstimate:
    """Estimate the memory of a session of a cut."""
    return _estimate(cut, {})


def fit(cut: Cut, limit: int) -> Cut:
    """Choose chunk sizes whose memory estimate is within a limit.

    Chunks start at the full size; those of the component with the highest peak are halved until the estimate fits.

    Args:
        cut: Cut of the model.
        limit: Bytes of a session.

    Returns:
        The cut with these chunk sizes.

    Raises:
        UsageError: Chunks of size one exceed the limit.
    """
    sizes = {dimension: cut.profile.dimensions[dimension].max for dimension in _chunks(cut)}
    known: Peaks = {}
    while True:
        chunked = with_chunks(cut, sizes)
        expected = _estimate(chunked, known)
        if expected.total <= limit:
            return chunked
        steps = [step for step in cut.pipeline.steps if step.chunk and sizes[step.chunk.dimension] > 1]
        if not steps:
            raise UsageError(f"max-memory {limit / 1e6:,.0f} MB: the least possible is {expected}; allow more")
        largest = max(steps, key=lambda step: expected.components[step.component]).chunk
        assert largest is not None  # for mypy: `steps` are chunked
        sizes[largest.dimension] //= 2


def with_chunks(cut: Cut, sizes: Mapping[str, int]) -> Cut:
    """The cut with other chunk sizes by dimension; the graphs stay the same."""
    steps = tuple(
        dataclasses.replace(step, chunk=dataclasses.replace(step.chunk, size=sizes[step.chunk.dimension]))
        if step.chunk
        else step
        for step in cut.pipeline.steps
    )
    ranges = {
        name: Range(span.min, sizes[name], span.max) if name in sizes else span
        for name, span in cut.profile.dimensions.items()
    }
    profile = dataclasses.replace(cut.profile, dimensions=ranges)
    return dataclasses.replace(cut, pipeline=dataclasses.replace(cut.pipeline, steps=steps), profile=profile)


def _estimate(cut: Cut, known: Peaks) -> MemoryEstimate:
    components: dict[str, int] = {}
    for step, inputs in zip(cut.pipeline.steps, step_shapes(cut), strict=True):
        component = cut.component(step.component)
        chunk = _chunk_shapes(step, component, inputs)
        key = component.name, tuple(chunk.values())
        if key not in known:
            known[key] = peak(component, chunk, split=step.chunk is not None)
        components[component.name] = max(components.get(component.name, 0), known[key])
    weights = {id(t): t.nbytes for c in cut.components for t in (*c.module.parameters(), *c.module.buffers())}
    return MemoryEstimate(sum(weights.values()), sum(value_bytes(cut).values()), components, _chunks(cut))


def _chunks(cut: Cut) -> dict[str, int]:
    return {step.chunk.dimension: step.chunk.size for step in cut.pipeline.steps if step.chunk}


def _chunk_shapes(step: Step, component: Component, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
    """Shapes of the inputs of one chunk of a step."""
    if step.chunk is None:
        return dict(inputs)
    dimension, size = step.chunk.dimension, step.chunk.size
    return {
        spec.name: tuple(
            min(size, given) if own == dimension else given
            for own, given in zip(spec.shape, inputs[spec.name], strict=True)
        )
        for spec in component.inputs
    }
