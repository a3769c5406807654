"""Kernel proof: the type in which ONNX Runtime's CPU kernels compute each weighted product.

ONNX Runtime may compute an INT8 graph in floating point (a Gemm with a floating-point bias, a convolution without an
output scale), and widens FP16 where it has no FP16 kernel. Its optimised graph shows what it runs, so that graph is
read, at the optimisation level of sessions and with dynamic dimensions: with fixed ones other fusions apply.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Set
from pathlib import Path

import onnx
import onnx_ir as ir

from perceiver_exporters.ir.flops import node_flops
from perceiver_exporters.ir.graph import constant_of, has_constant_weight, products
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.precision.integers.qdq import reads_integers
from perceiver_exporters.targets.target import Target
from perceiver_runtime.errors import INSTALL_ONNXRUNTIME, CheckError, UnavailableError

INTEGER_KERNELS = frozenset(
    {"MatMulIntegerToFloat", "MatMulInteger", "QLinearMatMul", "QGemm", "QLinearConv", "ConvInteger", "QAttention"}
    | {"DynamicQuantizeMatMul"}
)
FLOAT_KERNELS = frozenset({"MatMul", "Gemm", "Conv", "FusedMatMul", "FusedGemm", "FusedConv", "NhwcFusedConv"})
INSPECTABLE = frozenset({"cpu"})
"""Targets whose optimised graph can be made on this machine."""

BLOCKED_LAYOUT = "com.microsoft.nchwc"
"""Convolutions of this domain are in FP32; their weights are reordered and renamed."""

BLOCKWISE_KERNELS = {"MatMulNBits": "int4"}
_TYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "fp32",
    onnx.TensorProto.FLOAT16: "fp16",
    onnx.TensorProto.BFLOAT16: "bf16",
    onnx.TensorProto.DOUBLE: "fp64",
}


def prove_kernels(sized: SizedGraph, precision: str, target: Target, kept: Set[str]) -> dict[str, float]:
    """`kernel_shares` for targets that run on ONNX Runtime's CPU kernels; empty for others.

    A precision that the target widens may be computed in FP32 instead.

    Raises:
        CheckError: The share in the asked precision is below the target's threshold.
    """
    if target.name not in INSPECTABLE:
        return {}
    shares = kernel_shares(sized, kept)
    least = target.computed.get(precision, 1.0)
    allowed = {precision, "fp32"} if precision in target.widened else {precision}
    if shares and (found := sum(shares.get(kind, 0.0) for kind in allowed)) < least:
        seen = ", ".join(f"{kind} {share:.1%}" for kind, share in shares.items())
        raise CheckError(
            f"component {sized.name}: expected ONNX Runtime to run {least:.0%} of the weighted matrix FLOPs in "
            f"{' or '.join(sorted(allowed))} kernels, found {found:.1%} ({seen})"
        )
    return shares


def kernel_shares(sized: SizedGraph, kept: Set[str] = frozenset()) -> dict[str, float]:
    """Share of the weighted FLOPs by the type of the kernel; nodes in `kept` are not counted.

    Products that depend on no graph input are computed when the graph is loaded, and not counted.

    Raises:
        CheckError: No kernel reads a product's weight, or products of activations are not all in integers that the
            graph has so.
        UnavailableError: onnxruntime is missing.
    """
    flops, uses = _flops_by_weight(sized, kept)
    optimised = _optimised(sized.model)
    _prove_attention(sized, optimised)
    kernels: dict[str, list[str]] = defaultdict(list)
    for kind, weight in _kernels(optimised):
        kernels[weight].append(kind)
    found: dict[str, float] = defaultdict(float)
    unseen = {weight: uses[weight] - len(kernels[weight]) for weight in flops if len(kernels[weight]) < uses[weight]}
    if sum(unseen.values()) <= sum(node.domain == BLOCKED_LAYOUT for node in optimised.graph.node):
        for weight, missing in unseen.items():
            kernels[weight] += ["fp32"] * missing
        unseen = {}
    if unseen:
        raise CheckError(
            f"component {sized.name}: ONNX Runtime's optimised graph runs fewer known kernels than products on "
            f"{', '.join(sorted(unseen))}: the precision of these products can't be proven"
        )
    for weight, count in flops.items():
        for kind in kernels[weight]:
            found[kind] += count / len(kernels[weight])
    total = sum(found.values())
    return {kind: count / total for kind, count in sorted(found.items())} if total else {}


def _prove_attention(sized: SizedGraph, optimised: onnx.ModelProto) -> None:
    """Raise CheckError unless as many kernels multiply quantised activations as the graph has such products."""
    expected = sum(reads_integers(node) and not has_constant_weight(node) for node in products(sized.graph))
    stored = {tensor.name for tensor in optimised.graph.initializer if len(tensor.dims) > 1}
    integer = (node for node in optimised.graph.node if node.op_type in INTEGER_KERNELS)
    found = sum(not stored & set(node.input) for node in integer)
    if found < expected:
        raise CheckError(
            f"component {sized.name}: expected ONNX Runtime to run {expected} products of activations in int8 kernels, "
            f"found {found}; export without attention in int8"
        )


def _flops_by_weight(sized: SizedGraph, kept: Set[str]) -> tuple[dict[str, int], dict[str, int]]:
    """FLOPs at the profile's `opt`, and number of products, by the name of the stored weight.

    Products of the same operands count as one, since ONNX Runtime computes them once.
    """
    live = _live(sized.graph)
    flops: Counter[str] = Counter()
    uses: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for node in products(sized.opt):
        if has_constant_weight(node) and node.name not in kept and node.name in live:
            flops[_stored(node)] += node_flops(node)
            uses[_stored(node)].add((node.op_type, *(str(value.name) for value in node.inputs if value is not None)))
    return dict(flops), {weight: len(readers) for weight, readers in uses.items()}


def _live(graph: ir.Graph) -> set[str]:
    """Nodes that depend on an input of the graph."""
    live: set[ir.Value] = set(graph.inputs)
    names = set()
    for node in graph:
        if any(value in live for value in node.inputs if value is not None):
            live.update(node.outputs)
            names.add(str(node.name))
    return names


def _stored(node: ir.Node) -> str:
    value = node.inputs[1]
    while constant_of(value) is None:
        producer = value.producer() if value is not None else None
        assert producer is not None  # a constant weight ends at an initializer
        value = producer.inputs[0]
    assert value is not None
    return str(value.name)


def _optimised(model: ir.Model) -> onnx.ModelProto:
    try:
        from perceiver_runtime.backends.integer_products import avoid_saturation

        import onnxruntime as ort
    except ImportError as error:
        raise UnavailableError(f"the proof of precision needs onnxruntime: {error}; {INSTALL_ONNXRUNTIME}") from error
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    avoid_saturation(options)  # as sessions do
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "optimised.onnx")
        options.optimized_model_filepath = str(path)
        content = ir.to_proto(model).SerializeToString()
        try:
            ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            if "serialization failed" not in str(error):
                raise
            raise UnavailableError(
                f"{folder}: onnxruntime can't write {len(content)} bytes there; free space, or set TMPDIR"
            ) from error
        return onnx.load(path)


def _kernels(optimised: onnx.ModelProto) -> Iterator[tuple[str, str]]:
    """For every product with a stored operand: the type of its kernel, and the original name of the weight."""
    nodes = optimised.graph.node
    stored = {tensor.name: tensor for tensor in optimised.graph.initializer}
    before = {n.output[0]: n.input[0] for n in nodes if n.op_type in ("DequantizeLinear", "Cast")}
    types = {n.output[0]: n.attribute[0].i for n in nodes if n.op_type == "Cast"}
    ranged = {name for n in nodes if n.op_type == "DynamicQuantizeLinear" for name in n.output}
    for node in nodes:
        if node.op_type in INTEGER_KERNELS | FLOAT_KERNELS | set(BLOCKWISE_KERNELS):
            for name in node.input:
                weight = before.get(name, name)
                if weight in stored and len(stored[weight].dims) > 1:
                    yield _type(node, types.get(name, stored[weight].data_type), ranged), _first_name(weight)


def _type(node: onnx.NodeProto, weight: int, ranged: Set[str]) -> str:
    """The type of a kernel; `weight` is the type of its weight, `ranged` the outputs of run-time quantizers."""
    if node.op_type in INTEGER_KERNELS:
        return "int8-dynamic" if node.op_type == "DynamicQuantizeMatMul" or ranged & set(node.input) else "int8"
    return BLOCKWISE_KERNELS.get(node.op_type) or _TYPES.get(weight, "fp32")


def _first_name(name: str) -> str:
    """The name before ONNX Runtime moved a cast into a constant or made signed integers unsigned."""
    return name.removeprefix("FusedBack_").removesuffix("_s8_2_u8")
