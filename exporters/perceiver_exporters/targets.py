"""Targets: where a bundle is meant to run, and what that place can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from perceiver_exporters.precision import PRECISIONS, Precision
from perceiver_runtime.errors import UsageError


@dataclass(frozen=True)
class Target:
    """A device family. `precisions` are those that its backend computes in, rather than merely accepts.

    `opset` is the highest ONNX operator set that the backend reads; `quantization` names the INT8 scheme that
    its kernels want (a key of `perceiver_exporters.precision.int8.SCHEMES`), or is empty.
    """

    name: str
    summary: str
    backend: str
    opset: int
    precisions: tuple[str, ...]
    quantization: str = ""


_ALL = (
    Target(
        name="cpu",
        summary="x86-64 and arm64 processors, ONNX Runtime",
        backend="onnxruntime",
        opset=20,
        precisions=("fp32", "fp16", "int8"),
        quantization="cpu",
    ),
    Target(
        name="cuda",
        summary="NVIDIA GPUs through ONNX Runtime's CUDA provider, which has no INT8 matrix products",
        backend="onnxruntime",
        opset=20,
        precisions=("fp32", "fp16"),
    ),
)
TARGETS: dict[str, Target] = {target.name: target for target in _ALL}


def require(targets: Mapping[str, Target], target: str, precision: str) -> tuple[Target, Precision]:
    """The target and precision of those names. Raises UsageError if either is unknown or they don't go together."""
    if target not in targets:
        raise UsageError(f"unknown target {target!r}; expected one of {', '.join(targets)}")
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; expected one of {', '.join(PRECISIONS)}")
    chosen = targets[target]
    if precision not in chosen.precisions:
        raise UsageError(
            f"target {target} does not compute in {precision}; it offers {', '.join(chosen.precisions)}: "
            "choose one of these, or another target"
        )
    return chosen, PRECISIONS[precision]
