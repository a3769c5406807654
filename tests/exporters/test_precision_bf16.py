"""BF16: the pass of FP16 with another type, verified by the same roundings in FP32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from perceiver_deploy.api.verify import verify, write_failures
from perceiver_exporters.component import Blueprint
from perceiver_exporters.diagnose.bisection.replay import read_replay, run_replay
from perceiver_exporters.precision.widen import widen

from .conftest import Bundle
from .test_precision import rewrite, size
from .test_tolerance import swap_query_and_key

import onnxruntime as ort

LOW = ir.DataType.BFLOAT16


def test_products_read_bf16_and_normalisation_reads_single(blueprint: Blueprint, graphs: dict[str, ir.Model]) -> None:
    for graph in graphs.values():
        before = size(graph)
        low = rewrite(blueprint, graph, "bf16").graph
        for node in low:
            types = {v.dtype for v in node.inputs if v is not None} - {ir.DataType.INT64}
            if node.op_type in ("MatMul", "Gemm"):
                assert types == {LOW}, node.name
            if node.op_type in ("LayerNormalization", "Softmax"):
                assert types == {ir.DataType.FLOAT}, node.name
        assert size(ir.Model(low, ir_version=10)) < 0.53 * before


def test_a_widened_graph_makes_the_roundings(blueprint: Blueprint, graphs: dict[str, ir.Model]) -> None:
    """Each product's result has at most BF16's eight bits."""
    graph = widen(rewrite(blueprint, graphs["processor_block"], "bf16"))
    product = next(node for node in graph.graph if node.op_type == "MatMul")
    rounded = product.outputs[0].consumers()[0].outputs[0].consumers()[0].outputs[0]
    graph.graph.outputs.append(rounded)
    x = np.random.default_rng(0).standard_normal((2, 16, 64), dtype=np.float32)
    got = ort.InferenceSession(ir.to_proto(graph).SerializeToString()).run(None, {"latents": x})[-1]
    assert not (got.view(np.uint32) & 0xFFFF).any()
    assert np.abs(got).max() > 0.1


@pytest.mark.parametrize("target", ["rtx", "cuda"])
def test_a_bundle_verifies_without_bf16_kernels(target: str, bundle: Bundle) -> None:
    path, _ = bundle("bf16", target=target)
    verification = verify(path)
    assert verification.passed, [r for r in verification.parity.reports if not r.passed]
    errors = [r.rel_l2 for r in verification.parity.reports if r.component == "pipeline"]
    assert 1e-4 < max(errors) < 3e-2


def test_a_broken_bundle_does_not(bundle: Bundle, traced: dict[str, ir.Model], tmp_path: Path) -> None:
    broken = {**traced, "processor_block": swap_query_and_key(traced["processor_block"].clone())}
    path, _ = bundle("bf16", target="rtx", tracer=lambda component, *_: broken[component.name].clone())
    verification = verify(path)
    failed = {r.component for r in verification.parity.reports if not r.passed}
    assert failed == {"processor_block", "pipeline"}
    for failure in write_failures(path, verification, tmp_path / "failures"):
        directory = Path(failure.directory)
        assert read_replay(directory).bundle == str(path.resolve())
        measured = {r.tensor: r.rel_l2 for r in verification.parity.reports if r.component == failure.component}
        again = {r.tensor: r.rel_l2 for r in run_replay(directory)}
        assert again == pytest.approx(measured, rel=1e-3)
