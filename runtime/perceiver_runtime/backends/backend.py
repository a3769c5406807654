"""Protocols that a backend implements: a device with memory, and graphs that can be bound to buffers on it.

Order of steps, repetition, chunks and carried states are common to all backends: `perceiver_runtime.execution.plan`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol, runtime_checkable

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.manifest import ComponentEntry
from perceiver_runtime.tensors import Array, TensorSpec

Priority = Literal["normal", "high"]
Buffer = Any
"""Memory on a device, which only the device that allocated it can interpret."""


class Device(Protocol):
    """Memory that graphs read and write. Calls are executed in order; `download` waits for earlier ones."""

    def allocate(self, shape: tuple[int, ...], dtype: str) -> Buffer:
        """Allocate uninitialised, contiguous memory.

        Args:
            shape: Shape in numbers.
            dtype: NumPy dtype name.

        Returns:
            A buffer that only this device can interpret.
        """

    def view(self, buffer: Buffer, axis: int, start: int, stop: int) -> Buffer:
        """A part of a buffer that shares its memory; it need not be contiguous.

        Args:
            buffer: A whole buffer.
            axis: Axis to slice.
            start: First entry.
            stop: End of the entries.

        Returns:
            The view.
        """

    def is_contiguous(self, buffer: Buffer) -> bool:
        """Whether a graph can be bound to this buffer."""

    def copy(self, source: Buffer, target: Buffer) -> None:
        """Copy between buffers of equal shape; either can be a view."""

    def upload(self, array: Array, target: Buffer) -> None:
        """Copy an array from host memory."""

    def download(self, source: Buffer, array: Array) -> None:
        """Copy to an array in host memory."""

    def synchronize(self) -> None:
        """Wait until all earlier calls have finished, for timing."""


class Executable(Protocol):
    """A loaded component."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Graph inputs as in the manifest, checked against the graph."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Graph outputs as in the manifest, checked against the graph."""

    def bind(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Callable[[], None]:
        """Bind the graph to buffers.

        Args:
            inputs: A contiguous buffer for each graph input.
            outputs: A contiguous buffer for each graph output that is needed.

        Returns:
            A function that runs the graph once. It raises BundleError if the graph fails.
        """


class Backend(Protocol):
    """A library that runs graphs on a device."""

    @property
    def name(self) -> str:
        """Name in `BACKENDS`."""

    @property
    def device(self) -> Device:
        """Device whose memory its graphs read and write."""

    @property
    def versions(self) -> Mapping[str, str]:
        """Versions of the libraries behind it, for reports."""

    @property
    def concurrency(self) -> int:
        """Number of runs, each on its own buffers, that are worth executing at the same time."""

    def load(self, bundle: Bundle, component: ComponentEntry) -> Executable:
        """Load one component.

        Args:
            bundle: The bundle.
            component: The component to load.

        Returns:
            The loaded component.

        Raises:
            BundleError: The graph can't be parsed, or does not match the manifest.
        """


class Exchange(Protocol):
    """Arrays of one caller on a device, in the order of the caller's stream."""

    def take(self, name: str, array: Any) -> Buffer:
        """What a plan reads for an input: a NumPy array on the host, else memory of the device.

        Args:
            name: Name of the input, for messages.
            array: The caller's array.

        Returns:
            Memory with `shape` and `dtype`, not copied.

        Raises:
            FeedError: The array is on another device, not contiguous, not aligned, or of an unknown kind.
        """

    def target(self, spec: TensorSpec, given: Any) -> Buffer:
        """What a plan writes an output to.

        Args:
            spec: The output, its shape in numbers.
            given: The caller's array, or None for a new one.

        Returns:
            Memory of that shape and type.

        Raises:
            FeedError: The array does not match, can't be written, or as `take`.
        """

    def begin(self) -> None:
        """Later work of the device waits for what the caller's stream has so far."""

    def finish(self, results: Mapping[str, Buffer], written: Iterable[Any] = ()) -> dict[str, Any]:
        """Results as arrays for the caller, ready in the order of the caller's stream; without one, ready now.

        Args:
            results: New results.
            written: Arrays of the caller that were written.

        Returns:
            The new results.
        """

    def read(self, buffer: Buffer) -> Array:
        """The numbers, on the host."""

    def mapped(self, shape: tuple[int, ...], dtype: str) -> Any:
        """An array that host and device share. Raises UnavailableError where they have no memory in common."""


@runtime_checkable
class StreamedBackend(Protocol):
    """A backend whose concurrent runs each have a stream of their own, over the same loaded components."""

    def limit_memory(self, nbytes: int) -> None:
        """Limit the device memory of all streams together, in bytes."""

    def open_device(self, priority: Priority) -> Device:
        """A device for one more caller: a stream of that priority."""

    def exchange(self, device: Device, stream: Any) -> Exchange:
        """Arrays in and out of a device of `open_device`.

        Args:
            device: The device.
            stream: The caller's stream, as an integer or an object that has one; None for none.

        Returns:
            The exchange.

        Raises:
            UsageError: `stream` is none.
        """


@runtime_checkable
class OneStreamBackend(StreamedBackend, Protocol):
    """A streamed backend whose graphs run on one stream alone: `open_device` gives the same device to every caller."""

    @property
    def turn(self) -> AbstractContextManager[Any]:
        """Lock of the stream. It is held while a run of one caller is put on the stream."""
