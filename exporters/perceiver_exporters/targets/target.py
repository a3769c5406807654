"""Targets: device families, their backends, and the precisions and operator sets that these support."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from perceiver_runtime.errors import UsageError


@dataclass(frozen=True)
class Board:
    """A device, with the peak rates of its roofline.

    Attributes:
        name: Product name.
        memory: Bytes of memory.
        bandwidth: Memory bandwidth in bytes/s.
        peak: Dense FLOP/s (OP/s) of matrix products by precision; FP16 with FP16 accumulation on RTX cards.
        source: NVIDIA document. Jetson data sheets state sparse rates; half of them, without the DLA, is stored here.
        unified: Whether the memory is shared with the host.
    """

    name: str
    memory: int
    bandwidth: float
    peak: Mapping[str, float]
    source: str
    unified: bool = False


@dataclass(frozen=True)
class EngineTarget:
    """TensorRT and the GPUs for which engines of a target are built.

    Attributes:
        module: Python module that builds engines: `tensorrt` or `tensorrt_rtx`.
        tensorrt: Oldest supported version.
        compute_capabilities: GPUs of the target.
        ahead: Whether engines can be built on any machine (TensorRT-RTX only).
        min_capability: Oldest compute capability by precision, for precisions that not all GPUs support.
        max_batch: Largest batch of an export that names none: an engine is tuned and its memory reserved for it.
    """

    module: str
    tensorrt: tuple[int, int]
    compute_capabilities: tuple[str, ...]
    ahead: bool = False
    min_capability: Mapping[str, str] = field(default_factory=dict)
    max_batch: int = 8

    def capabilities(self, precision: str) -> tuple[str, ...]:
        """The compute capabilities that support a precision."""
        oldest = _order(self.min_capability.get(precision, "0.0"))
        return tuple(c for c in self.compute_capabilities if _order(c) >= oldest)


@dataclass(frozen=True)
class Target:
    """A family of devices and the backend that runs on them.

    Attributes:
        name: Name on the command line.
        summary: One line for reports.
        backend: Backend of the runtime.
        opset: Newest ONNX operator set that the backend reads.
        precisions: Names of the precisions that the backend computes in.
        quantization: Key of the INT8 scheme of its kernels in `precision.integers.scheme`; empty without INT8.
        reduced: Name of the scheme with 7-bit weights; empty where that has no benefit.
        engines: TensorRT and GPUs; None if the backend reads ONNX.
        boards: Devices of the family.
        unsupported: Reasons why other precisions are not offered.
        computed: Minimum share of weighted FLOPs that must run in the precision's own kernels; 1 if not listed.
        widened: Precisions of weights that the backend computes in FP32 on processors without such arithmetic.
    """

    name: str
    summary: str
    backend: str
    opset: int
    precisions: tuple[str, ...]
    quantization: str = ""
    reduced: str = ""
    engines: EngineTarget | None = None
    boards: tuple[Board, ...] = ()
    unsupported: Mapping[str, str] = field(default_factory=dict)
    computed: Mapping[str, float] = field(default_factory=dict)
    widened: tuple[str, ...] = ()

    def require(self, precision: str) -> None:
        """Raise UsageError, with the reason, for a precision that the target does not offer."""
        if precision not in self.precisions:
            reason = f" ({self.unsupported[precision]})" if precision in self.unsupported else ""
            raise UsageError(
                f"target {self.name} does not compute in {precision}{reason}; it offers {', '.join(self.precisions)}: "
                "choose one of these, or another target"
            )


def _order(capability: str) -> tuple[int, int]:
    major, minor = capability.split(".")
    return int(major), int(minor)


_GB = 10**9
_T = 1e12

_ORIN = (
    Board(
        "Orin Nano 8GB Super",
        8 * _GB,
        102e9,
        {"fp32": 2.1 * _T, "fp16": 16.7 * _T, "int8": 33.4 * _T},
        "Jetson Orin Nano Super data sheet: 1,024 cores at 1,020 MHz, 67 sparse INT8 TOPS",
        unified=True,
    ),
    Board(
        "Orin NX 16GB",
        16 * _GB,
        102.4e9,
        {"fp32": 1.9 * _T, "fp16": 15 * _T, "int8": 30 * _T},
        "Jetson Orin NX data sheet: 1,024 cores at 918 MHz (25 W; Super mode has 1,173), 60 of the 100 sparse TOPS",
        unified=True,
    ),
    Board(
        "AGX Orin 64GB",
        64 * _GB,
        204.8e9,
        {"fp32": 5.3 * _T, "fp16": 42.6 * _T, "int8": 85 * _T},
        "Jetson AGX Orin technical brief 1.2: 2,048 cores at 1.3 GHz, 5.3 FP32 TFLOPS, 170 of the 275 sparse TOPS",
        unified=True,
    ),
)
_THOR = (
    Board(
        "AGX Thor 128GB",
        128 * _GB,
        273e9,
        {"fp32": 8.1 * _T, "fp16": 258 * _T, "int8": 517 * _T, "fp8": 517 * _T},
        "Jetson Thor data sheet: T5000, 20 SMs at 1,575 MHz, 2,070 sparse FP4 TFLOPS, 1,035 FP8; INT8 taken as FP8; "
        "FP32 of 2,560 cores",
        unified=True,
    ),
)
_RTX = (
    Board(
        "RTX 3060 12GB",
        12 * _GB,
        360e9,
        {"fp32": 12.7 * _T, "fp16": 51 * _T, "int8": 102 * _T},
        "NVIDIA Ampere GA102 white paper, rates per SM; RTX 3060: 28 SMs at 1,777 MHz",
    ),
    Board(
        "RTX 4090 24GB",
        24 * _GB,
        1008e9,
        {"fp32": 82.6 * _T, "fp16": 330 * _T, "int8": 661 * _T},
        "NVIDIA Ada GPU architecture white paper, appendix A: 128 SMs at 2,520 MHz",
    ),
    Board(
        "RTX 5090 32GB",
        32 * _GB,
        1792e9,
        {"fp32": 104.8 * _T, "fp16": 419 * _T, "int8": 838 * _T},
        "NVIDIA RTX Blackwell GPU architecture white paper, appendix A: 170 SMs at 2,407 MHz",
    ),
)
_HOPPER = (
    Board(
        "H100 SXM 80GB",
        80 * _GB,
        3350e9,
        {"fp32": 67 * _T, "fp16": 989 * _T, "int8": 1979 * _T, "fp8": 1979 * _T},
        "NVIDIA H100 data sheet, halves of the sparse rates: 132 SMs, 1,830 MHz (FP32 1,980)",
    ),
)

NO_RUN_TIME_RANGES = "TensorRT reads INT8 ranges from the graph; use int8"
NEEDS_21 = "block-quantised INT4 weights need opset 21; the parser of its oldest TensorRT reads opset 20"
_ALL = (
    Target(
        name="cpu",
        summary="x86-64 and arm64 processors, ONNX Runtime",
        backend="onnxruntime",
        opset=20,
        precisions=("fp32", "fp16", "int8", "int8-dynamic"),
        quantization="cpu",
        reduced="cpu-reduced",
        unsupported={
            "bf16": "ONNX Runtime has no BF16 matrix products for processors",
            "fp8": "processors have no FP8 arithmetic",
            "int4": "weight-only INT4 is for GPUs limited by memory bandwidth",
        },
        widened=("fp16",),
        computed={"int8": 0.99, "int8-dynamic": 0.99},
    ),
    Target(
        name="cuda",
        summary="NVIDIA GPUs through ONNX Runtime's CUDA provider, which has no INT8 matrix products",
        backend="onnxruntime",
        opset=20,
        precisions=("fp32", "fp16", "bf16"),
        unsupported={
            "int8": "ONNX Runtime's CUDA provider has no INT8 matrix products",
            "int8-dynamic": "ONNX Runtime's CUDA provider has no INT8 matrix products",
            "fp8": "ONNX Runtime's CUDA provider has no FP8 matrix products of this form",
            "int4": "ONNX Runtime's CUDA provider has no INT4 weights in this form",
        },
    ),
    Target(
        name="jetson-orin",
        summary="Jetson Orin with JetPack 6 (TensorRT 10.3): decomposed attention, no FP8",
        backend="tensorrt",
        opset=20,
        precisions=("fp32", "fp16", "bf16", "int8"),
        quantization="tensorrt",
        engines=EngineTarget("tensorrt", (10, 3), ("8.7",)),
        unsupported={"int8-dynamic": NO_RUN_TIME_RANGES, "fp8": "Orin has no FP8 arithmetic", "int4": NEEDS_21},
        boards=_ORIN,
    ),
    Target(
        name="jetson-thor",
        summary="Jetson Thor with JetPack 7 (TensorRT 10.13 and newer)",
        backend="tensorrt",
        opset=20,
        precisions=("fp32", "fp16", "bf16", "int8", "fp8"),
        quantization="tensorrt",
        engines=EngineTarget("tensorrt", (10, 13), ("11.0",)),
        unsupported={"int8-dynamic": NO_RUN_TIME_RANGES, "int4": NEEDS_21},
        boards=_THOR,
    ),
    Target(
        name="rtx",
        summary="GeForce and RTX cards from Turing to Blackwell, engines built ahead of time on any machine",
        backend="tensorrt-rtx",
        opset=20,
        precisions=("fp32", "fp16", "bf16", "int8", "fp8", "int4"),
        quantization="tensorrt",
        unsupported={"int8-dynamic": NO_RUN_TIME_RANGES},
        engines=EngineTarget(
            "tensorrt_rtx",
            (1, 0),
            ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"),
            ahead=True,
            min_capability={
                "fp32": "8.0",
                "bf16": "8.0",
                "int8": "8.0",
                "fp8": "8.9",
                "int4": "8.0",
            },  # Turing: "FP32 GEMM is not supported"
        ),
        boards=_RTX,
    ),
    Target(
        name="hopper",
        summary="H100 and H200 with TensorRT, which builds on the machine itself",
        backend="tensorrt",
        opset=20,
        precisions=("fp32", "fp16", "bf16", "int8", "fp8"),
        quantization="tensorrt",
        engines=EngineTarget("tensorrt", (10, 3), ("9.0",)),
        unsupported={"int8-dynamic": NO_RUN_TIME_RANGES, "int4": NEEDS_21},
        boards=_HOPPER,
    ),
)
TARGETS: dict[str, Target] = {target.name: target for target in _ALL}
