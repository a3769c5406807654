"""Compile a subpipeline into operations on buffers: order of steps, repetition, chunks, carried states.

Chunked steps read views of a value if these are contiguous, else a staging buffer of one chunk's size. A session input
that is only read in chunks is never complete on the device, nor is an output that is only written in chunks: their
chunks are copied directly from and to the caller's arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from perceiver_runtime.backends.backend import Buffer, Device, Executable
from perceiver_runtime.execution.activity import Activity
from perceiver_runtime.execution.step_calls import ChunkSlice, Index, StepCalls, unroll
from perceiver_runtime.execution.subpipeline import Subpipeline
from perceiver_runtime.pipeline import Step
from perceiver_runtime.tensors import Array, TensorSpec

Arrays = Mapping[str, Array]
Call = Callable[[Arrays, Arrays], None]
WHOLE: Index = (slice(None),)


@dataclass(frozen=True)
class Operation:
    """One call with the session's feeds and results."""

    activity: Activity
    call: Call


@dataclass(frozen=True)
class Value:
    """A tensor between steps. Without a buffer it is the caller's array: a feed or a result."""

    shape: tuple[int, ...]
    buffer: Buffer | None


class PlanBuilder:
    """Builds `operations` in order, the final `values`, and `constants` for omitted inputs that are read in chunks."""

    def __init__(self, device: Device, subpipeline: Subpipeline, executables: Mapping[str, Executable]) -> None:
        self.operations: list[Operation] = []
        self.values: dict[str, Value] = {}
        self.constants: dict[str, Array] = {}
        self._at: tuple[int | None, int | None] = None, None
        self._device = device
        self._subpipeline = subpipeline
        self._executables = executables
        self._read_whole = _read_whole(subpipeline, executables)
        self._read_at_all = frozenset(value for step in subpipeline.steps for value in step.inputs.values())
        self._kept = self._read_at_all | {spec.name for spec in subpipeline.outputs.values()}

    def lay_out(self, sizes: Mapping[str, int], filled: frozenset[str]) -> None:
        """Allocate, bind and order everything for these sizes; inputs in `filled` get their default."""
        for spec in self._subpipeline.inputs:
            self._add_input(spec, spec.resolve(sizes), spec.name in filled)
        for number, step in enumerate(self._subpipeline.steps):
            self._add_step(number, step, self._executables[step.component])
        self._at = None, None
        for spec in self._subpipeline.outputs.values():
            if (buffer := self.values[spec.name].buffer) is not None:
                self._emit("copy out", spec.name, _download(self._device, buffer, spec.name, (...,)))

    def _emit(self, kind: Literal["component", "copy in", "copy out", "copy"], name: str, call: Call) -> None:
        self.operations.append(Operation(Activity(kind, name, *self._at), call))

    def _add_input(self, spec: TensorSpec, shape: tuple[int, ...], filled: bool) -> None:
        resident = spec.name in self._read_whole
        buffer = self._device.allocate(shape, spec.dtype) if resident else None
        self.values[spec.name] = Value(shape, buffer)
        if filled:
            default = np.broadcast_to(np.array(self._subpipeline.defaults[spec.name], spec.dtype), shape)
            if resident:
                self._device.upload(default, buffer)
            else:
                self.constants[spec.name] = default
        elif resident:
            self._emit("copy in", spec.name, _upload(self._device, spec.name, (...,), buffer))

    def _add_step(self, number: int, step: Step, executable: Executable) -> None:
        sources = {graph: self.values[value] for graph, value in step.inputs.items()}
        calls = unroll(step, executable, {graph: value.shape for graph, value in sources.items()}, self._kept)
        targets = {spec.name: self._allocate(calls, spec) for spec in calls.outputs}
        staging = _Staging(self._device, calls)
        bound = _Bound(executable)
        for index, chunk in enumerate(calls.chunks):
            self._at = number, index
            inputs = {s.name: self._read(staging, s, sources[s.name], chunk) for s in executable.inputs}
            outputs = {s.name: self._write(staging, s, targets[s.name][index % 2], chunk) for s in calls.outputs}
            self._emit("component", step.component, bound.call(inputs, outputs))
            for spec in calls.outputs:
                self._store(calls, spec, targets[spec.name][index % 2], chunk, outputs[spec.name])
            for output, graph in step.carry.items():
                sources[graph] = Value(sources[graph].shape, outputs[output])
        last = (len(calls.chunks) - 1) % 2
        for spec in calls.outputs:
            if spec.name in step.outputs:
                self.values[step.outputs[spec.name]] = Value(spec.resolve(calls.sizes), targets[spec.name][last])

    def _allocate(self, calls: StepCalls, spec: TensorSpec) -> tuple[Buffer | None, Buffer | None]:
        """Buffers that even and odd calls write: two if one is read while the other is written."""
        value = calls.step.outputs.get(spec.name)
        if calls.axis(spec) is not None and value not in self._read_at_all:
            return None, None
        shape = spec.resolve(calls.sizes)
        first = self._device.allocate(shape, spec.dtype)
        if spec.name in calls.step.carry and len(calls.chunks) > 1:
            return first, self._device.allocate(shape, spec.dtype)
        return first, first

    def _read(self, staging: _Staging, spec: TensorSpec, value: Value, chunk: ChunkSlice) -> Buffer:
        """Buffer that a call reads: the value, a contiguous view of it, or a staging buffer filled before."""
        axis = staging.calls.axis(spec)
        if axis is None or chunk is None:
            return value.buffer
        if value.buffer is None:
            staged = staging.buffer(spec, chunk)
            name = staging.calls.step.inputs[spec.name]
            self._emit("copy in", name, _upload(self._device, name, (*WHOLE * axis, chunk), staged))
            return staged
        view = self._device.view(value.buffer, axis, chunk.start, chunk.stop)
        if self._device.is_contiguous(view):
            return view
        staged = staging.buffer(spec, chunk)
        self._emit("copy", staging.calls.step.inputs[spec.name], _copy(self._device, view, staged))
        return staged

    def _write(self, staging: _Staging, spec: TensorSpec, target: Buffer | None, chunk: ChunkSlice) -> Buffer:
        """Buffer that a call writes: the value, a contiguous view of it, or a staging buffer copied after."""
        axis = staging.calls.axis(spec)
        if axis is None or chunk is None:
            return target
        if target is not None:
            view = self._device.view(target, axis, chunk.start, chunk.stop)
            if self._device.is_contiguous(view):
                return view
        return staging.buffer(spec, chunk)

    def _store(
        self, calls: StepCalls, spec: TensorSpec, target: Buffer | None, chunk: ChunkSlice, written: Buffer
    ) -> None:
        axis = calls.axis(spec)
        if axis is None or chunk is None:
            return
        if target is None:
            name = calls.step.outputs[spec.name]
            self._emit("copy out", name, _download(self._device, written, name, (*WHOLE * axis, chunk)))
            return
        view = self._device.view(target, axis, chunk.start, chunk.stop)
        if not self._device.is_contiguous(view):
            self._emit("copy", calls.step.outputs[spec.name], _copy(self._device, written, view))


class _Staging:
    """Buffers of one chunk's size, one for each graph input or output and shape."""

    def __init__(self, device: Device, calls: StepCalls) -> None:
        self.calls = calls
        self._device = device
        self._buffers: dict[tuple[str, tuple[int, ...]], Buffer] = {}

    def buffer(self, spec: TensorSpec, chunk: ChunkSlice) -> Buffer:
        key = spec.name, self.calls.shape(spec, chunk)
        if key not in self._buffers:
            self._buffers[key] = self._device.allocate(key[1], spec.dtype)
        return self._buffers[key]


class _Bound:
    """Bound graphs of one step; calls on the same buffers share one.

    It keeps references to the buffers, so that the id of a released one can't be reused.
    """

    def __init__(self, executable: Executable) -> None:
        self._executable = executable
        self._calls: dict[tuple[int, ...], tuple[Call, list[Buffer]]] = {}

    def call(self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]) -> Call:
        buffers = [*inputs.values(), *outputs.values()]
        key = tuple(map(id, buffers))
        if key not in self._calls:
            run = self._executable.bind(inputs, outputs)
            self._calls[key] = (lambda _feeds, _results: run()), buffers
        return self._calls[key][0]


def _read_whole(subpipeline: Subpipeline, executables: Mapping[str, Executable]) -> frozenset[str]:
    """Values that some step reads other than in chunks."""
    read: set[str] = set()
    for step in subpipeline.steps:
        specs = {spec.name: spec for spec in executables[step.component].inputs}
        chunk = step.chunk.dimension if step.chunk else None
        read |= {value for graph, value in step.inputs.items() if chunk not in specs[graph].shape}
    return frozenset(read)


def _upload(device: Device, name: str, index: Any, target: Buffer) -> Call:
    return lambda feeds, _results: device.upload(feeds[name][index], target)


def _download(device: Device, source: Buffer, name: str, index: Any) -> Call:
    return lambda _feeds, results: device.download(source, results[name][index])


def _copy(device: Device, source: Buffer, target: Buffer) -> Call:
    return lambda _feeds, _results: device.copy(source, target)
