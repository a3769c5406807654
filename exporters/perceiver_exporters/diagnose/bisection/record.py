"""What a bundle recorded of its precision: calibration, layers and nodes kept in FP32."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from perceiver_exporters.precision.record import PATH, ComponentPrecision, nodes_in_fp32, parse_record
from perceiver_runtime.bundle import Bundle


def precision_record(bundle: Bundle) -> Mapping[str, ComponentPrecision]:
    """The record by component; empty for a bundle that has none."""
    if PATH not in bundle.manifest.files:
        return {}
    return {entry.component: entry for entry in parse_record(bundle.read(PATH), bundle.file(PATH))}


def kept_in_fp32(graph: ir.Graph, record: ComponentPrecision | None) -> frozenset[str]:
    """Names of the nodes that the export kept in FP32."""
    if record is None:
        return frozenset()
    return nodes_in_fp32(graph, frozenset(record.kept), record.findings)
