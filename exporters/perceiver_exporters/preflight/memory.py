"""Estimated memory of building and running engines, compared with the memory of the target's boards."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import onnx_ir as ir

from perceiver_exporters.preflight.report import EngineMemoryEstimate, Problem
from perceiver_exporters.preflight.subject import Subject
from perceiver_runtime.tensorrt.builder.build import DEFAULT_WORKSPACE

RUN_OVERHEAD = 700 << 20
"""Bytes of CUDA context, TensorRT's libraries, Python and NumPy: an estimate, not measured on boards."""
BUILD_OVERHEAD = 1500 << 20
"""The same with the builder's libraries."""
SCRATCH_FACTOR = 2.25
"""TensorRT's scratch memory over the peak of live activations in the graph's order.

TensorRT uses other orders and layouts. Measured: up to 2.1, as the smallest workspace with which TensorRT-RTX builds.
"""
BUILD_COPIES = 3
"""Copies of a component's weights during its build: parsed, rearranged by the builder, serialised."""
USABLE = 0.85
"""Share of a board's unified memory that is available; the system uses the rest."""


def estimate(subject: Subject) -> EngineMemoryEstimate:
    """Estimate from the weights and the peak of live activations at the largest shapes."""
    weights = {name: weight_bytes(model.graph) for name, model in subject.graphs.items()}
    live = {name: live_bytes(graph) for name, graph in subject.largest.items()}
    scratch = math.ceil(SCRATCH_FACTOR * max(live.values(), default=0))
    workspace = max(DEFAULT_WORKSPACE, scratch)
    return EngineMemoryEstimate(
        weights=sum(weights.values()),
        scratch=scratch,
        workspace=workspace,
        build_peak=BUILD_OVERHEAD + workspace + BUILD_COPIES * max(weights.values(), default=0),
        run_peak=RUN_OVERHEAD + sum(weights.values()) + scratch,
    )


def fits(subject: Subject) -> Iterator[Problem]:
    """The estimate exceeds the named board or all boards of the target (blocked), or some of them (risky)."""
    expected = estimate(subject)
    peak = max(expected.build_peak, expected.run_peak)
    need = f"building takes up to {_gb(expected.build_peak)}, running {_gb(expected.run_peak)}"
    boards = {board.name: board.memory for board in subject.target.boards}
    if subject.memory is not None:
        boards = {f"a board of {subject.memory / 1e9:.0f} GB": subject.memory}
    small = [name for name, memory in boards.items() if peak > USABLE * memory]
    if small:
        verdict = "blocked" if len(small) == len(boards) else "risky"
        yield ("blocked" if verdict == "blocked" else "risky"), "", f"{need}; too much for {', '.join(small)}"


def weight_bytes(graph: ir.Graph) -> int:
    """Bytes of all initializers."""
    return sum(v.const_value.nbytes for v in graph.initializers.values() if v.const_value is not None)


def live_bytes(graph: ir.Graph) -> int:
    """Peak of the bytes of live activations, for the graph's order and without fusion."""
    readers = Counter(id(v) for node in graph for v in node.inputs if v is not None)
    live = peak = sum(_size(v) for v in graph.inputs)
    for node in graph:
        live += sum(_size(v) for v in node.outputs)
        peak = max(peak, live)
        for value in {id(v): v for v in node.inputs if v is not None and not v.is_initializer()}.values():
            readers[id(value)] -= sum(v is value for v in node.inputs)
            if readers[id(value)] == 0:
                live -= _size(value)
    return peak


def _size(value: ir.Value) -> int:
    if value.shape is None or not value.shape.is_static() or value.dtype is None:
        return 0
    return math.ceil(math.prod(value.shape.numpy()) * value.dtype.itemsize)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
