"""Component calls of one step: one for each repetition or chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from perceiver_runtime.backends.backend import Executable
from perceiver_runtime.format.wiring import bind_symbols
from perceiver_runtime.pipeline import Step
from perceiver_runtime.tensors import TensorSpec

ChunkSlice = slice | None
Index = tuple[slice, ...]


@dataclass(frozen=True)
class StepCalls:
    """Calls of a step at `sizes` of the component's symbols, one for each of `chunks` (None: the whole tensor)."""

    step: Step
    outputs: tuple[TensorSpec, ...]
    sizes: Mapping[str, int]
    chunks: tuple[ChunkSlice, ...]

    def axis(self, spec: TensorSpec) -> int | None:
        """Axis of the chunk dimension in a graph input or output, or None."""
        chunk = self.step.chunk
        return spec.shape.index(chunk.dimension) if chunk and chunk.dimension in spec.shape else None

    def shape(self, spec: TensorSpec, chunk: ChunkSlice) -> tuple[int, ...]:
        """Shape of one chunk of a graph input or output."""
        shape, axis = spec.resolve(self.sizes), self.axis(spec)
        if chunk is None or axis is None:
            return shape
        return (*shape[:axis], chunk.stop - chunk.start, *shape[axis + 1 :])


def unroll(
    step: Step, executable: Executable, shapes: Mapping[str, tuple[int, ...]], kept: frozenset[str]
) -> StepCalls:
    """The calls of a step whose graph inputs have these shapes; outputs are the carried and those in `kept`."""
    sizes = cast(Mapping[str, int], bind_symbols(executable.inputs, shapes, step.component))
    wanted = {*step.carry, *(graph for graph, value in step.outputs.items() if value in kept)}
    outputs = tuple(spec for spec in executable.outputs if spec.name in wanted)
    return StepCalls(step, outputs, sizes, _chunks(step, sizes))


def _chunks(step: Step, sizes: Mapping[str, int]) -> tuple[ChunkSlice, ...]:
    if step.chunk is None:
        return (None,) * step.repeat
    total, size = sizes[step.chunk.dimension], step.chunk.size
    end = min(size, total) if step.chunk.only_first else total
    return tuple(slice(start, min(start + size, total)) for start in range(0, end, size))
