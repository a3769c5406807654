"""Execution plan: a subpipeline compiled for one set of sizes, with all buffers allocated and all graphs bound.

A run copies the feeds in, calls the bound graphs in order, and copies the results out.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import Any

import numpy as np

from perceiver_runtime.backends.backend import Device, Executable
from perceiver_runtime.execution.activity import Observe
from perceiver_runtime.execution.plan_builder import PlanBuilder
from perceiver_runtime.execution.subpipeline import Subpipeline
from perceiver_runtime.tensors import Array


class ExecutionPlan:
    """One run at a time may use its buffers: a session keeps a plan for each concurrent run."""

    def __init__(
        self,
        subpipeline: Subpipeline,
        executables: Mapping[str, Executable],
        device: Device,
        sizes: Mapping[str, int],
        filled: frozenset[str],
    ) -> None:
        """Allocate and bind everything. Inputs in `filled` get the subpipeline's default."""
        builder = PlanBuilder(device, subpipeline, executables)
        builder.lay_out(sizes, filled)
        self._device = device
        self._operations = tuple(builder.operations)
        self._constants: dict[str, Any] = builder.constants
        self._shown = tuple((name, spec.name) for name, spec in subpipeline.outputs.items())
        self.shapes = {spec.name: builder.values[spec.name].shape for spec in subpipeline.outputs.values()}
        self._results = tuple((s.name, self.shapes[s.name], s.dtype) for s in subpipeline.outputs.values())

    def run(self, feeds: Mapping[str, Array], observe: Observe | None = None) -> dict[str, Array]:
        """Results by name, in new arrays. `observe` gets each activity with its start and end."""
        results: dict[str, Array] = {name: np.empty(shape, dtype) for name, shape, dtype in self._results}
        given = {**self._constants, **feeds} if self._constants else feeds
        if observe is None:
            for operation in self._operations:
                operation.call(given, results)
        else:
            self._run_timed(given, results, observe)
        return {name: results[value] for name, value in self._shown}

    def upload_constants(self) -> None:
        """Keep what stands for omitted inputs on the device, of which each chunk would else be copied in each run."""
        on_host, self._constants = self._constants, {}
        for name, array in on_host.items():
            self._constants[name] = self._device.allocate(array.shape, array.dtype.name)
            self._device.upload(array, self._constants[name])

    def run_into(self, feeds: Mapping[str, Any], results: Mapping[str, Any]) -> None:
        """Run on arrays of the caller, on the host or the device; results by the names of their values."""
        given = {**self._constants, **feeds} if self._constants else feeds
        for operation in self._operations:
            operation.call(given, results)

    def _run_timed(self, feeds: Mapping[str, Array], results: Mapping[str, Array], observe: Observe) -> None:
        for operation in self._operations:
            self._device.synchronize()
            start = perf_counter()
            operation.call(feeds, results)
            self._device.synchronize()
            observe(operation.activity, start, perf_counter())
