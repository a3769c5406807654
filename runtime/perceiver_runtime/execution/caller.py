"""A caller of a session, with a lane of its own: arrays on the device in and out, in the order of its stream."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

import numpy as np

from perceiver_runtime.backends.backend import Exchange, Priority
from perceiver_runtime.backends.foreign import HostExchange
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import FeedError, UnavailableError, UsageError
from perceiver_runtime.execution.feeds import check_feeds, check_values
from perceiver_runtime.execution.lanes import Lanes, plan_key
from perceiver_runtime.execution.plan import ExecutionPlan
from perceiver_runtime.execution.subpipeline import Subpipeline, Subpipelines, check_mapping
from perceiver_runtime.format.files import refuse_pickling
from perceiver_runtime.suggest import did_you_mean
from perceiver_runtime.tensors import Array, TensorSpec

Arrays = Mapping[str, Any]
_NOTHING = bytes(16)


class Caller:
    """One caller of a session: buffers of its own over the session's weights, and a stream of its own on TensorRT.

    Made by `Session.caller`.

    Feeds and `out` may be arrays on the GPU with `__dlpack__` or `__cuda_array_interface__` (PyTorch, CuPy), results of
    a caller, or arrays on the host, which are copied. They must be contiguous and are never cast. **Values on the GPU
    are not checked**, unless the caller was opened with `check_values=True`: an id that the model does not know reads
    memory out of bounds there, and NaN goes through. Results are NumPy arrays on a backend without a device, else
    `perceiver_runtime.tensorrt.arrays.DeviceArray`, which PyTorch and CuPy take by DLPack.

    With a stream, work is enqueued behind what the stream has, the stream's later work waits for it, and calls return
    before it is done. Arrays on the host among `out` are complete at return. Without a stream, all results are.

    A context manager; used by one thread at a time, while other callers run beside it.
    """

    __reduce__ = refuse_pickling

    def __init__(
        self,
        bundle: Bundle,
        lanes: Lanes,
        subpipelines: Subpipelines,
        stream: Any,
        priority: Priority | None,
        check_values: bool,
        check_finite: bool,
    ) -> None:
        self._bundle, self._lanes, self._subpipelines = bundle, lanes, subpipelines
        self._check_values, self._check_finite = check_values, check_finite
        self._lane = lanes.reserve(priority)
        self._open = True
        self._lock = threading.Lock()
        try:
            self._exchange: Exchange = (
                HostExchange(stream) if lanes.streamed is None else lanes.streamed.exchange(self._lane.device, stream)
            )
        except BaseException:
            self.close()
            raise

    def run(self, feeds: Arrays, outputs: Iterable[str] | None = None, *, out: Arrays | None = None) -> dict[str, Any]:
        """Run the pipeline, as `Session.run` does.

        Args:
            feeds: Inputs by name.
            outputs: Names of the outputs to compute; None computes all.
            out: Arrays that outputs are written to, by name; for the others new arrays are made. They may not overlap
                each other or the feeds.

        Returns:
            Outputs by name; those of `out` are the caller's own objects.

        Raises:
            FeedError: An array does not match in name, type, shape, device, contiguity or alignment.
            UsageError: An output is unknown, or the caller or its session is closed.
            UnavailableError: The device is out of memory, or beyond the session's `device_memory`.
        """
        return self._execute(self._subpipelines.run(None if outputs is None else tuple(outputs)), feeds, out)

    def encode(self, feeds: Arrays, *, out: Arrays | None = None) -> dict[str, Any]:
        """Run the encode stage, as `Session.encode` does; the encoded values stay on the device."""
        return self._execute(self._subpipelines.encode(), feeds, out)

    def decode(
        self,
        encoded: Arrays,
        feeds: Arrays | None = None,
        outputs: Iterable[str] | None = None,
        *,
        out: Arrays | None = None,
    ) -> dict[str, Any]:
        """Run the decode stage, as `Session.decode` does, on encoded values of any caller."""
        subpipeline = self._subpipelines.decode(None if outputs is None else tuple(outputs))
        return self._execute(subpipeline, self._subpipelines.joined(encoded, feeds), out)

    def mapped(self, shape: tuple[int, ...], dtype: str) -> Any:
        """An array that CPU and GPU share, on boards whose memory is unified; no copy is made for either.

        Args:
            shape: Shape in numbers.
            dtype: NumPy dtype name.

        Returns:
            A `DeviceArray` whose `host` is the same memory as a NumPy array. The host may write a feed when the run
            that reads it has finished, and read a result when it is complete.

        Raises:
            UnavailableError: CPU and GPU have separate memory here.
        """
        return self._exchange.mapped(shape, dtype)

    def close(self) -> None:
        """Release the stream and the buffers; results stay valid."""
        if self._open:
            self._open = False
            del self._lane
            self._lanes.release()

    def __enter__(self) -> Caller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _execute(self, subpipeline: Subpipeline, feeds: Arrays, out: Arrays | None) -> dict[str, Any]:
        check_mapping(subpipeline.title, feeds)
        out = {} if out is None else out
        check_mapping(f"{subpipeline.title}: out", out)
        self._lanes.check_open()  # before the lock: another thread may have held it at a fork
        with self._lock, self._lanes.turn:
            if not self._open or self._lanes.closed:
                raise UsageError("the caller or its session is closed; open it again")
            self._bundle.check_unchanged()
            return self._run(subpipeline, feeds, out)

    def _run(self, subpipeline: Subpipeline, feeds: Arrays, out: Arrays) -> dict[str, Any]:
        exchange, lane = self._exchange, self._lane
        taken = {name: exchange.take(name, array) for name, array in feeds.items() if name in subpipeline.specs}
        standing = {**feeds, **{name: _stand_in(buffer) for name, buffer in taken.items()}}
        sizes = check_feeds(subpipeline, standing)
        key = plan_key(subpipeline, feeds, sizes)
        plan = lane.plans.pop(key, None) or self._lanes.plan(lane, subpipeline, standing, sizes)
        lane.plans[key] = plan
        targets = self._targets(subpipeline, plan, out)
        check_apart(taken, {spec.name: targets[spec.name] for name, spec in subpipeline.outputs.items() if name in out})
        exchange.begin()
        self._check(subpipeline, taken)
        try:
            plan.run_into(taken, targets)
        except BaseException:
            del lane.plans[key]  # the error may have come from its state
            with contextlib.suppress(UnavailableError):
                exchange.finish({}, out.values())  # what is enqueued already writes into the caller's arrays
            raise
        made = {name: targets[spec.name] for name, spec in subpipeline.outputs.items() if name not in out}
        arrays = exchange.finish(made, out.values())
        return {name: out[name] if name in out else arrays[name] for name in subpipeline.outputs}

    def _targets(self, subpipeline: Subpipeline, plan: ExecutionPlan, out: Arrays) -> dict[str, Any]:
        if unknown := [name for name in out if name not in subpipeline.outputs]:
            hint = did_you_mean(str(unknown[0]), subpipeline.outputs)
            raise FeedError(
                f"{subpipeline.title}: out: no output {unknown[0]!r} is computed; expected some of "
                f"{', '.join(subpipeline.outputs)}{hint}"
            )
        return {
            spec.name: self._exchange.target(TensorSpec(name, spec.dtype, plan.shapes[spec.name]), out.get(name))
            for name, spec in subpipeline.outputs.items()
        }

    def _check(self, subpipeline: Subpipeline, taken: Mapping[str, Any]) -> None:
        """Check values on the host, as `Session.run` does; those on the device if it was asked for."""
        read = {
            n: a if isinstance(a, np.ndarray) else self._exchange.read(a) for n, a in taken.items() if self._reads(a)
        }
        check_values(subpipeline, read, self._check_finite)

    def _reads(self, array: Any) -> bool:
        return self._check_values or isinstance(array, np.ndarray)


def check_apart(feeds: Mapping[str, Any], targets: Mapping[str, Any]) -> None:
    """Raise FeedError if an array that is written shares memory with one that is read, or another one written."""
    written = list(targets.items())
    for index, (name, target) in enumerate(written):
        for other, array in (*feeds.items(), *written[:index]):
            if _overlap(target, array):
                raise FeedError(f"out: expected arrays of their own, got {name} in the memory of {other}; copy one")


def _overlap(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        both = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
        return both and np.may_share_memory(one, other)
    return bool(one.address < other.address + other.nbytes and other.address < one.address + one.nbytes)


def _stand_in(buffer: Any) -> Array:
    """An array of that type and shape, for checks; of memory on the device, without its values."""
    if isinstance(buffer, np.ndarray):
        return buffer
    return np.ndarray(buffer.shape, buffer.dtype, _NOTHING, 0, (0,) * len(buffer.shape))  # each entry the same bytes
