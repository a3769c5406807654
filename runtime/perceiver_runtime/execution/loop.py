"""The applications of one step: repetitions, or pieces along the chunk dimension."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from perceiver_runtime.backends.backend import Executable
from perceiver_runtime.format.wiring import bind_symbols
from perceiver_runtime.pipeline import Step
from perceiver_runtime.tensors import TensorSpec

Piece = slice | None
Index = tuple[slice, ...]


@dataclass(frozen=True)
class Loop:
    """`sizes` are those of the component's own symbols; a piece of None is the whole."""

    step: Step
    outputs: tuple[TensorSpec, ...]
    sizes: Mapping[str, int]
    pieces: tuple[Piece, ...]

    def axis(self, spec: TensorSpec) -> int | None:
        """Where a graph input or output has the chunk dimension."""
        chunk = self.step.chunk
        return spec.shape.index(chunk.dimension) if chunk and chunk.dimension in spec.shape else None

    def shape(self, spec: TensorSpec, piece: Piece) -> tuple[int, ...]:
        """Shape of one piece of a graph input or output."""
        shape, axis = spec.resolve(self.sizes), self.axis(spec)
        if piece is None or axis is None:
            return shape
        return (*shape[:axis], piece.stop - piece.start, *shape[axis + 1 :])


def unroll(step: Step, executable: Executable, shapes: Mapping[str, tuple[int, ...]], kept: frozenset[str]) -> Loop:
    """Lay out the applications of a step whose graph inputs have these shapes; outputs are the carried and the kept."""
    sizes = cast(Mapping[str, int], bind_symbols(executable.inputs, shapes, step.component))
    wanted = {*step.carry, *(graph for graph, value in step.outputs.items() if value in kept)}
    outputs = tuple(spec for spec in executable.outputs if spec.name in wanted)
    return Loop(step, outputs, sizes, _pieces(step, sizes))


def _pieces(step: Step, sizes: Mapping[str, int]) -> tuple[Piece, ...]:
    if step.chunk is None:
        return (None,) * step.repeat
    total, size = sizes[step.chunk.dimension], step.chunk.size
    end = min(size, total) if step.chunk.only_first else total
    return tuple(slice(start, min(start + size, total)) for start in range(0, end, size))
