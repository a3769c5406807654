"""Range audit of activations: values of the FP32 graph on golden and calibration inputs, against a narrower type.

The static audit sees constants, but not their sums. Here the graph runs in FP32, and only the largest magnitude of each
value that a node of the narrower type would read or write is kept.

| Rule | Finds | Action |
|---|---|---|
| RA008 | a value beyond 1 / `HEADROOM` of the largest finite number, or not finite | protects the node |
| RA009 | a value too small everywhere to be represented | protects the node |

The headroom is for other inputs, and for kernels that accumulate in the type. Scores inside a fused attention are
bounded by the largest norms of a query and a key.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper

from perceiver_exporters.component import Cut
from perceiver_exporters.ir.fused_attention import is_fused
from perceiver_exporters.ir.graph import constant_of
from perceiver_exporters.precision.audit.finding import AuditFinding
from perceiver_exporters.precision.floating import lower
from perceiver_exporters.precision.formats import Format
from perceiver_exporters.reference import Feeds, Reference
from perceiver_runtime.errors import INSTALL_ONNXRUNTIME, UnavailableError

ACTIVATION_RULES = frozenset({"RA008", "RA009"})
Findings = Mapping[str, tuple[AuditFinding, ...]]


def audit_activations(
    cut: Cut, graphs: Mapping[str, ir.Model], static: Findings, form: Format, samples: Iterable[Feeds]
) -> dict[str, tuple[AuditFinding, ...]]:
    """Findings by component beyond the `static` ones, over all calls of the reference on the samples."""
    watched = {name: _Watched(graph, static[name], form) for name, graph in graphs.items()}
    reference = Reference(cut)
    for feeds in samples:
        for call in reference.calls(feeds):
            if call.component in watched:
                watched[call.component].see(call.inputs)
    return {name: each.findings() for name, each in watched.items()}


class _Watched:
    """Largest magnitudes of one component so far, and of squared norms inside fused attention."""

    def __init__(self, model: ir.Model, static: tuple[AuditFinding, ...], form: Format) -> None:
        self._form, self._component = form, str(model.graph.name)
        low = _low_nodes(model, static, form)
        self._nodes = [node for node in model.graph if str(node.name) in low]
        self._peaks: dict[str, float] = {}
        read = {str(value.name): value for node in self._nodes for value in _floats(node)}
        given = {str(value.name) for value in model.graph.inputs}
        self._given = [name for name in read if name in given]
        computed = [name for name, value in read.items() if name not in given and constant_of(value) is None]
        self._peaks |= {n: _peak(v.const_value.numpy()) for n, v in read.items() if v.const_value is not None}
        self._inputs = [str(value.name) for value in model.graph.inputs]
        fused = [node for node in self._nodes if is_fused(node)]
        self._names: tuple[str, ...] = ()
        self._session: Any = None
        if computed or fused:
            self._names, self._session = _session(model, computed, fused)

    def see(self, feeds: Feeds) -> None:
        """Run the component once."""
        for name in self._given:
            self._keep(name, _peak(feeds[name]))
        if self._session is not None:
            made = self._session.run(None, {name: feeds[name] for name in self._inputs})
            for name, peak, total in zip(self._names, made[::2], made[1::2], strict=True):
                self._keep(name, float(peak) if np.isfinite(total) else math.inf)

    def findings(self) -> tuple[AuditFinding, ...]:
        """Nodes with values out of range."""
        found = []
        for node in self._nodes:
            names = (str(value.name) for value in _floats(node))
            peaks = {name: self._peaks[name] for name in names if name in self._peaks}
            if is_fused(node) and (scores := self._scores(node)):
                peaks["its attention scores"] = scores
            if beyond := [name for name, peak in peaks.items() if not peak <= self._form.max_peak]:
                why = f"{beyond[-1]} reaches {peaks[beyond[-1]]:,.6g}; {self._range()}"
                found.append(AuditFinding("RA008", self._component, str(node.name), "protected", why))
            elif lost := [name for name, peak in peaks.items() if 0 < peak < self._form.min_peak]:
                why = f"{lost[-1]} stays below {peaks[lost[-1]]:.2g}, where {self._form.name.upper()} has few digits"
                found.append(AuditFinding("RA009", self._component, str(node.name), "protected", why))
        return tuple(found)

    def _keep(self, name: str, peak: float) -> None:
        self._peaks[name] = max(self._peaks.get(name, 0.0), peak)

    def _scores(self, node: ir.Node) -> float:
        """Bound of |query . key| x scale over heads: the product of the largest norms."""
        squares = [self._peaks.get(_norm_name(node, i), 0.0) for i in (0, 1)]
        width = node.inputs[0].shape[2] if node.inputs[0] is not None and node.inputs[0].shape is not None else None
        heads = node.attributes.get_int("num_heads", 1)
        default = (width // heads) ** -0.5 if isinstance(width, int) else 1.0
        return math.sqrt(squares[0]) * math.sqrt(squares[1]) * (node.attributes.get_float("scale", 0.0) or default)

    def _range(self) -> str:
        form = self._form
        return f"{form.name.upper()}'s range is {form.largest:,.6g}, of which {form.max_peak:,.6g} is used"


def _low_nodes(model: ir.Model, static: tuple[AuditFinding, ...], form: Format) -> set[str]:
    """Names of the nodes that would read or write the narrower type."""
    made = model.clone()
    lower(made, form, frozenset(finding.node for finding in static))
    return {
        str(node.name)
        for node in made.graph
        if any(value is not None and value.dtype == form.dtype for value in (*node.inputs, *node.outputs))
    }


def _floats(node: ir.Node) -> list[ir.Value]:
    """A node's FP32 inputs and outputs."""
    return [v for v in (*node.inputs, *node.outputs) if v is not None and v.dtype == ir.DataType.FLOAT]


def _peak(array: np.ndarray) -> float:
    """Largest magnitude; infinite if a number is not finite."""
    peak = float(np.abs(array).max(initial=0.0))
    return peak if math.isfinite(peak) else math.inf


def _norm_name(node: ir.Node, index: int) -> str:
    return f"{node.name}/operand {index}"


def _session(model: ir.Model, names: Sequence[str], fused: Sequence[ir.Node]) -> tuple[tuple[str, ...], Any]:
    """A session of the graph with two outputs per value: largest magnitude, and sum of magnitudes.

    The sum is NaN or infinite if any number is; a maximum may ignore NaN.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise UnavailableError(f"the range audit needs onnxruntime: {error}; {INSTALL_ONNXRUNTIME}") from error
    proto: onnx.ModelProto = ir.to_proto(model)
    del proto.graph.output[:]
    watched = list(names)
    nodes: list[onnx.NodeProto] = []
    for node in fused:
        for index in (0, 1):
            operand, name = node.inputs[index], _norm_name(node, index)
            assert operand is not None
            shape = [0, 0, node.attributes.get_int("num_heads", 1), -1]
            proto.graph.initializer.append(helper.make_tensor(f"{name}/shape", TensorProto.INT64, [4], shape))
            proto.graph.initializer.append(helper.make_tensor(f"{name}/axis", TensorProto.INT64, [1], [-1]))
            nodes.append(helper.make_node("Reshape", [str(operand.name), f"{name}/shape"], [f"{name}/heads"]))
            nodes.append(helper.make_node("ReduceSumSquare", [f"{name}/heads", f"{name}/axis"], [name]))
            watched.append(name)
    for name in watched:
        nodes.append(helper.make_node("Abs", [name], [f"{name}/magnitudes"]))
        for operator, what in (("ReduceMax", "peak"), ("ReduceSum", "total")):
            nodes.append(helper.make_node(operator, [f"{name}/magnitudes"], [f"{name}/{what}"], keepdims=0))
            proto.graph.output.append(helper.make_tensor_value_info(f"{name}/{what}", TensorProto.FLOAT, []))
    proto.graph.node.extend(nodes)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return tuple(watched), ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
