"""From a component that fails to the node that causes it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

from perceiver_exporters.bundle.stored_graphs import stored_proto
from perceiver_exporters.diagnose.bisection.departure import Comparison, Departure, Graphs
from perceiver_exporters.diagnose.bisection.diagnosis import Diagnosis
from perceiver_exporters.diagnose.bisection.differences import Difference, differences
from perceiver_exporters.diagnose.bisection.recorded_export import Fresh
from perceiver_exporters.diagnose.bisection.replay import Replay, write_replay
from perceiver_exporters.diagnose.bisection.values import boundary, part
from perceiver_exporters.ir.graph import products
from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.precision.widen import widen
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import UnavailableError
from perceiver_runtime.measure.compare import Bound
from perceiver_runtime.tensors import Array

SHOWN = 8
"""Differences kept of a diagnosis; an FP32 graph differs from an INT8 one at every product."""


class ComponentGraphs:
    """The graph of one component in the bundle and in fresh exports."""

    def __init__(self, bundle: Bundle, name: str, fresh: Fresh) -> None:
        self.name = name
        self._bundle = bundle
        self._precision = PRECISIONS[bundle.manifest.precision]
        stored = stored_proto(bundle, bundle.manifest.component(name).onnx)
        self._fresh, self._got = ir.from_proto(fresh.rewritten), ir.from_proto(stored)
        self._graph = self._runnable(stored)
        self.differences = differences(self._fresh, self._got, self._precision.margins.floor)
        self._comparison = self._open(fresh)

    @property
    def compared(self) -> int:
        """Number of values compared; 0 where this processor can't run the graphs."""
        return len(self._comparison.shared) if self._comparison else 0

    def departed(self, inputs: Mapping[str, Array], call: int, replays: Path | None) -> Diagnosis | None:
        """The first node whose result is beyond its bound on these inputs."""
        departure = self._comparison.first(inputs) if self._comparison else None
        return None if departure is None else self._departed(departure, inputs, call, replays)

    def unlike(self) -> Diagnosis | None:
        """A node that differs from the exported one although all results are within their bounds."""
        if not self.differences:
            return None
        multiply = {str(node.name) for node in products(self._fresh.graph)}
        first = next((d for d in self.differences if d.node in multiply), self.differences[0])
        shown = tuple(d for d in self.differences if d.node == first.node)
        operator = _operator(first.node, self._fresh, self._got)
        return Diagnosis(self.name, "node", str(first), first.node, operator, differences=shown[:SHOWN])

    def _open(self, fresh: Fresh) -> Comparison | None:
        try:
            return Comparison(Graphs(self._graph, self._runnable(fresh.rewritten), fresh.fp32), self._precision)
        except UnavailableError:
            if not self.differences:  # there is nothing else to go by
                raise
            return None

    def _runnable(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The graph, with BF16 emulated in FP32: processors lack BF16 kernels."""
        return ir.to_proto(widen(ir.from_proto(model))) if self._precision.name == "bf16" else model

    def _departed(
        self, departure: Departure, inputs: Mapping[str, Array], call: int, replays: Path | None
    ) -> Diagnosis:
        distance = departure.distance
        cause = self._cause(departure)
        node = cause.node if cause else str(_maker(self._got, distance.tensor).name)
        return Diagnosis(
            self.name,
            "node",
            str(cause) if cause else "its result departs, although it is the node that a fresh export has",
            node,
            _operator(node, self._fresh, self._got),
            distance.tensor,
            call,
            distance.error,
            distance.noise,
            distance.bound,
            tuple(d for d in self.differences if d.node == node)[:SHOWN],
            self._write(departure, inputs, node, replays) if replays is not None else "",
        )

    def _cause(self, departure: Departure) -> Difference | None:
        """The first difference after the values within their bounds, else the last before them."""
        tensor = departure.distance.tensor
        unagreed = _makers(self._fresh, tensor, departure.agreed)
        behind = [d for d in self.differences if d.node in unagreed]
        before = [d for d in self.differences if d.node in _makers(self._fresh, tensor, ())]
        return behind[0] if behind else before[-1] if before else None

    def _write(self, departure: Departure, inputs: Mapping[str, Array], node: str, replays: Path) -> str:
        """The part of the graph between the values that agreed and the one that departed."""
        assert self._comparison is not None
        tensor = departure.distance.tensor
        given = self._comparison.values(inputs, boundary(self._graph, tensor, departure.agreed))
        replay = Replay(
            str(self._bundle.path.resolve()), self.name, "onnxruntime", {tensor: Bound(departure.distance.bound)}, node
        )
        expected = self._comparison.expected(inputs, tensor)
        directory = replays / self.name
        write_replay(directory, replay, given, {tensor: expected}, part(self._graph, [tensor], given))
        return str(directory)


def _makers(model: ir.Model, tensor: str, agreed: Collection[str]) -> set[str]:
    """The nodes that compute a value, back to the values within their bounds."""
    known, found, pending = set(agreed) - {tensor}, set(), [_maker(model, tensor)]
    while pending:
        node = pending.pop()
        found.add(str(node.name))
        for value in node.inputs:
            producer = value.producer() if value is not None and value.name not in known else None
            if producer is not None and str(producer.name) not in found:
                pending.append(producer)
    return found


def _maker(model: ir.Model, tensor: str) -> ir.Node:
    return next(node for node in model.graph if any(value.name == tensor for value in node.outputs))


def _operator(name: str, *models: ir.Model) -> str:
    return next((node.op_type for model in models for node in model.graph if node.name == name), "")
