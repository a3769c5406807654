"""The preflight checks in use, in the order of their ids. An id is never given to another check."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from perceiver_exporters.preflight import attention_checks, bundle_checks, graph_checks, memory
from perceiver_exporters.preflight.report import PreflightFinding, Problem
from perceiver_exporters.preflight.subject import Subject


@dataclass(frozen=True)
class PreflightCheck:
    """One check: permanent id, title of the problem, remedy, and the function that finds problems in a subject."""

    id: str
    title: str
    remedy: str
    find: Callable[[Subject], Iterator[Problem]]

    def findings(self, subject: Subject) -> Iterator[PreflightFinding]:
        """The problems found in a subject."""
        for verdict, component, message in self.find(subject):
            yield PreflightFinding(self.id, verdict, component, message, self.remedy)


CHECKS = (
    PreflightCheck(
        "PF001",
        "operators that TensorRT can't import",
        "export for this target, at opset 20; a DFT is a product with constant matrices",
        graph_checks.operators,
    ),
    PreflightCheck(
        "PF002",
        "asymmetric or unsigned quantisation",
        "export int8 for this target: --precision int8 --target TARGET quantises symmetrically to INT8",
        graph_checks.zero_points,
    ),
    PreflightCheck(
        "PF003",
        "biases quantised to INT32",
        "export int8 for this target, which leaves biases in floating point",
        graph_checks.integer_biases,
    ),
    PreflightCheck(
        "PF004",
        "no profile for dynamic shapes",
        "export again: the cut of the model must give a profile",
        bundle_checks.missing_profile,
    ),
    PreflightCheck(
        "PF005",
        "a dynamic axis without a range",
        "add the axis to the profile of the cut, or make it a fixed size, and export again",
        bundle_checks.axes_without_range,
    ),
    PreflightCheck(
        "PF006",
        "ONNX Attention in FP32",
        "export fp16, or export at opset 20, where attention is decomposed",
        attention_checks.single_precision,
    ),
    PreflightCheck(
        "PF007",
        "a precision that the board does not compute in",
        "export in a precision of the target",
        graph_checks.precision,
    ),
    PreflightCheck(
        "PF008",
        "more keys than an FP16 softmax can count",
        "keep the softmax in FP32, or give the keys in chunks",
        attention_checks.keys,
    ),
    PreflightCheck(
        "PF009",
        "an operator set newer than the parser",
        "export again for this target, at opset 20",
        graph_checks.opset,
    ),
    PreflightCheck(
        "PF010",
        "more memory than the board has",
        "use smaller chunks or a smaller largest batch, fp16 or int8, or a larger board",
        memory.fits,
    ),
    PreflightCheck(
        "PF011",
        "engines for another GPU",
        "build again on the device: perceiver-run build BUNDLE",
        bundle_checks.compute_capability,
    ),
    PreflightCheck(
        "PF012",
        "engines of another TensorRT",
        "build again with the target's TensorRT: perceiver-run build BUNDLE on the device",
        bundle_checks.tensorrt_major,
    ),
    PreflightCheck(
        "PF013",
        "head widths that no fused attention kernel takes",
        "expect unfused attention; chunk keys or queries to bound the score matrix",
        attention_checks.head_width,
    ),
    PreflightCheck(
        "PF014",
        "types that TensorRT does not have",
        "cast to FP32, INT64 or BOOL in the model",
        graph_checks.types,
    ),
)
