"""The precision record of a bundle: `precision/report.json`, one entry per component."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from perceiver_exporters.precision.audit.finding import AuditFinding
from perceiver_exporters.precision.integers.layers import kept_nodes
from perceiver_runtime.errors import BundleError
from perceiver_runtime.format import schema, strict_json

PATH = "precision/report.json"


@dataclass(frozen=True)
class ComponentPrecision:
    """Precision of one component; shares are of FLOPs at the profile's `opt`.

    Attributes:
        weighted: Share of the products with a weight that the graph has in the asked precision.
        overall: The same of all products.
        kernels: Share of the weighted products by type of ONNX Runtime's kernel; empty for targets with engines.
        calibration: Method of a calibrated precision.
        smoothed: Whether scale migration was applied.
        kept: Layers in FP32, to meet the accuracy budget or because they are faster there.
        findings: Audit findings.
        reduced_range: Whether weights have 7 bits.
        attention: Attentions whose products of activations are in integers as well.
    """

    component: str
    weighted: float
    overall: float
    kernels: Mapping[str, float]
    calibration: str = ""
    smoothed: bool = False
    kept: tuple[str, ...] = ()
    findings: tuple[AuditFinding, ...] = ()
    reduced_range: bool = False
    attention: tuple[str, ...] = ()

    def run_in(self, precision: str) -> str:
        """The types of the kernels, and why they differ from the asked precision if they do."""
        shares = ", ".join(f"{kind} {share:.1%}" for kind, share in self.kernels.items())
        if not self.kernels or precision in self.kernels:
            return shares
        return f"computed in {shares}: ONNX Runtime has no {precision.upper()} kernels here"

    @property
    def ranges(self) -> str:
        """How ranges were measured, in words."""
        made = (
            self.calibration,
            "smoothed" if self.smoothed else "",
            "7-bit weights" if self.reduced_range else "",
            "attention in int8" if self.attention else "",
        )
        return ", ".join(filter(None, made))


def nodes_in_fp32(graph: ir.Graph, layers: Set[str], findings: Iterable[AuditFinding]) -> frozenset[str]:
    """Names of the nodes that an export kept in FP32: products of these layers, and nodes with findings."""
    return kept_nodes(graph, layers) | {finding.node for finding in findings}


def save_record(report: Sequence[ComponentPrecision], directory: Path) -> None:
    """Write the record to a bundle under construction."""
    path = directory / PATH
    path.parent.mkdir(exist_ok=True)
    path.write_text(strict_json.dumps(schema.encode(tuple(report)), indent=1) + "\n", encoding="utf-8")


def load_record(path: Path) -> tuple[ComponentPrecision, ...]:
    """Read a record file. Raises BundleError if it is none."""
    try:
        return parse_record(path.read_bytes(), path)
    except OSError as error:
        raise BundleError(f"{path}: expected a precision report: {error}; export again") from error


def parse_record(data: bytes, path: Path) -> tuple[ComponentPrecision, ...]:
    """Parse a record that was read from `path`. Raises BundleError if it is none."""
    try:
        content = strict_json.loads(data)
    except ValueError as error:
        raise BundleError(f"{path}: expected a precision report: {error}; export again") from error
    if not isinstance(content, list):
        raise BundleError(f"{path}: expected a list of components, got {content!r:.40}; export again")
    return tuple(schema.decode(ComponentPrecision, entry, str(path)) for entry in content)
