"""A plan: a program at one set of sizes, with every buffer allocated and every graph bound.

Running it is copying feeds in, calling bound graphs one after the other, and copying results out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter

import numpy as np

from perceiver_runtime.backends.backend import Device, Executable
from perceiver_runtime.execution.planner import Planner
from perceiver_runtime.execution.program import Program
from perceiver_runtime.tensors import Array

Record = Callable[[str, float], None]


class Plan:
    """Its buffers belong to one run at a time: a session keeps a plan for each run that is under way."""

    def __init__(
        self,
        program: Program,
        executables: Mapping[str, Executable],
        device: Device,
        sizes: Mapping[str, int],
        filled: frozenset[str],
    ) -> None:
        """Inputs in `filled` hold the program's default."""
        planner = Planner(device, program, executables)
        planner.lay_out(sizes, filled)
        self._device = device
        self._operations = tuple(planner.operations)
        self._constants = planner.constants
        self._shown = tuple((name, spec.name) for name, spec in program.outputs.items())
        self._results = tuple((s.name, planner.values[s.name].shape, s.dtype) for s in program.outputs.values())

    def run(self, feeds: Mapping[str, Array], record: Record | None = None) -> dict[str, Array]:
        """Results by name, in new arrays. `record` gets the seconds of each application of each component."""
        results: dict[str, Array] = {name: np.empty(shape, dtype) for name, shape, dtype in self._results}
        given = {**self._constants, **feeds} if self._constants else feeds
        if record is None:
            for operation in self._operations:
                operation.call(given, results)
        else:
            self._run_timed(given, results, record)
        return {name: results[value] for name, value in self._shown}

    def _run_timed(self, feeds: Mapping[str, Array], results: Mapping[str, Array], record: Record) -> None:
        for operation in self._operations:
            self._device.synchronize()
            start = perf_counter()
            operation.call(feeds, results)
            self._device.synchronize()
            if operation.component is not None:
                record(operation.component, perf_counter() - start)
