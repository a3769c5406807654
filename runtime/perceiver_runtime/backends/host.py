"""Host memory as a device, and the check of a graph against the manifest, for the CPU backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from perceiver_runtime.errors import BundleError
from perceiver_runtime.machine import usable_cores
from perceiver_runtime.tensors import Array, TensorSpec

GraphSpecs = Mapping[str, tuple[str, Sequence[int | str | None]]]
"""NumPy dtype name (or the backend's own, if NumPy has none) and shape of each graph input or output, by name."""


class HostMemory:
    """NumPy arrays; graphs run on them in place."""

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Uninitialised array."""
        return np.empty(shape, dtype)

    def view(self, buffer: Array, axis: int, start: int, stop: int) -> Array:
        """A slice."""
        return buffer[(slice(None),) * axis + (slice(start, stop),)]

    def is_contiguous(self, buffer: Array) -> bool:
        """Whether rows are adjacent in memory."""
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
        """Do nothing: a run returns when it has finished."""


def overlapping_runs(threads: int | None) -> int:
    """Number of runs with `threads` threads (None: all cores) that fit on the usable cores."""
    cores = usable_cores()
    return max(1, cores // (threads or cores))


def check_specs(specs: tuple[TensorSpec, ...], graph: GraphSpecs, where: str) -> None:
    """Compare the manifest with a graph; names of symbolic dimensions may differ, their positions may not."""
    if set(graph) != {spec.name for spec in specs}:
        raise BundleError(f"{where}s: the graph has {', '.join(graph)}; manifest: {', '.join(s.name for s in specs)}")
    for spec in specs:
        dtype, shape = graph[spec.name]
        if dtype != spec.dtype or not _same_shape(spec, shape):
            raise BundleError(f"{where} {spec.name}: the graph has {dtype}{list(shape)}; manifest: {spec}")


def _same_shape(spec: TensorSpec, shape: Sequence[int | str | None]) -> bool:
    """A symbolic size in the graph matches any dimension, a number only itself."""
    return len(shape) == spec.rank and all(
        not isinstance(size, int) or size == dimension for dimension, size in zip(spec.shape, shape, strict=True)
    )
