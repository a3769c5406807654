"""Host memory that NumPy and the graphs share, and graphs held against the manifest: for the CPU's backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from perceiver_runtime.errors import BundleError
from perceiver_runtime.machine import usable_cores
from perceiver_runtime.tensors import Array, TensorSpec

GraphSpecs = Mapping[str, tuple[str, Sequence[int | str | None]]]
"""What a graph says of its inputs or outputs: NumPy dtype name (or the backend's own, if unknown) and shape."""


class HostMemory:
    """NumPy arrays; graphs run on them in place."""

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Uninitialised array."""
        return np.empty(shape, dtype)

    def view(self, buffer: Array, axis: int, start: int, stop: int) -> Array:
        """A slice."""
        return buffer[(slice(None),) * axis + (slice(start, stop),)]

    def is_contiguous(self, buffer: Array) -> bool:
        """Whether rows follow each other without gaps."""
        return bool(buffer.flags.c_contiguous)

    def copy(self, source: Array, target: Array) -> None:
        """Copy between arrays."""
        np.copyto(target, source)

    def upload(self, array: Array, target: Array) -> None:
        """Copy the caller's array in."""
        np.copyto(target, array)

    def download(self, source: Array, array: Array) -> None:
        """Copy out to the caller's array."""
        np.copyto(array, source)

    def synchronize(self) -> None:
        """Nothing to wait for: a run returns when it is done."""


def overlapping_runs(threads: int | None) -> int:
    """How many runs of `threads` threads (None: all cores) the cores that this process may use have room for."""
    cores = usable_cores()
    return max(1, cores // (threads or cores))


def check_specs(specs: tuple[TensorSpec, ...], graph: GraphSpecs, where: str) -> None:
    """Hold what the manifest says against what the graph says; a symbol's name may differ, its place may not."""
    if set(graph) != {spec.name for spec in specs}:
        raise BundleError(f"{where}s: the graph has {', '.join(graph)}; manifest: {', '.join(s.name for s in specs)}")
    for spec in specs:
        dtype, shape = graph[spec.name]
        if dtype != spec.dtype or not _same_shape(spec, shape):
            raise BundleError(f"{where} {spec.name}: the graph has {dtype}{list(shape)}; manifest: {spec}")


def _same_shape(spec: TensorSpec, shape: Sequence[int | str | None]) -> bool:
    """A symbolic size in the graph admits any number, a number only itself."""
    return len(shape) == spec.rank and all(
        not isinstance(size, int) or size == dimension for dimension, size in zip(spec.shape, shape, strict=True)
    )
