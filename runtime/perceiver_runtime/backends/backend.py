"""What a backend supplies: device memory, and graphs that can be bound to it.

Order of steps, repetition, chunks and carried states are `perceiver_runtime.execution.plan`'s, the same for all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.manifest import ComponentEntry
from perceiver_runtime.tensors import Array, TensorSpec

Buffer = Any
"""Memory on a device; only the device that allocated it looks inside."""


class Device(Protocol):
    """Memory that graphs read and write. All calls happen in order; `download` waits for what came before."""

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Buffer:
        """Uninitialised, contiguous memory."""

    def view(self, buffer: Buffer, axis: int, start: int, stop: int) -> Buffer:
        """Entries [start, stop) along an axis, sharing memory with `buffer`; possibly not contiguous."""

    def is_contiguous(self, buffer: Buffer) -> bool:
        """Whether a graph can be bound to this buffer."""

    def copy(self, source: Buffer, target: Buffer) -> None:
        """Copy between equal shapes; either side may be a view."""

    def upload(self, array: Array, target: Buffer) -> None:
        """Copy from host memory."""

    def download(self, source: Buffer, array: Array) -> None:
        """Copy to host memory."""

    def synchronize(self) -> None:
        """Wait until everything asked for is done: what a timer needs."""


class Executable(Protocol):
    """One component, ready to run."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Graph inputs, as the manifest has them and the graph confirmed."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Graph outputs, likewise."""

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        """Tie all graph inputs and the wanted graph outputs to contiguous buffers; the result runs the graph once.

        The result raises BundleError if the graph fails.
        """


class Backend(Protocol):
    """A way to run graphs."""

    @property
    def name(self) -> str:
        """Its name in `BACKENDS`."""

    @property
    def device(self) -> Device:
        """Where its graphs read and write."""

    @property
    def versions(self) -> Mapping[str, str]:
        """The libraries behind it, for reports."""

    @property
    def concurrency(self) -> int:
        """How many runs, each on buffers of its own, it is worth to let compute at once."""

    def load(self, bundle: Bundle, component: ComponentEntry) -> Executable:
        """Load one component. Raises BundleError if the graph does not parse or does not match the manifest."""
