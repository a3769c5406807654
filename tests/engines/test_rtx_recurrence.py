"""REAL: recurrent layers behind an embedding that FP16 stores in FP16."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
import pytest
from factories.hybrid import PERCEIVER, build

from perceiver_deploy.families.hybrid import cut
from perceiver_deploy.models.hybrid import ClassifierConfig, HybridConfig, TextConfig
from perceiver_deploy.models.hybrid.config import Cell
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.precision import PRECISIONS, Request
from perceiver_exporters.precision.integers.scheme import SCHEMES
from perceiver_runtime.tensorrt.api import load_tensorrt
from perceiver_runtime.tensorrt.builder.build import BuildRequest, build_engine


@pytest.mark.parametrize("cell", ["gru", "lstm", "rnn"])
def test_recurrence_over_an_fp16_table_builds(cell: Cell, tmp_path: Path) -> None:
    """TensorRT-RTX 1.7.1 fails where a cast stands between the transposition and a recurrent layer (Myelin error)."""
    text = TextConfig(128, 40, embedding=24, hidden=40, cell=cell)
    heads = (ClassifierConfig("kind", 3),)
    made = cut(build(HybridConfig(20, 12, PERCEIVER, text=text, optional=("text",), classifiers=heads)))
    component = made.component("text_encoder")
    graph = PRECISIONS["fp16"].rewrite(
        trace(component, made.profile, 20), Request(component.name, SCHEMES["tensorrt"], lambda: iter(()))
    )
    assert {node.op_type for node in graph.graph if node.outputs[0].dtype == ir.DataType.FLOAT16} == {"Gather"}
    ir.save(graph, path := tmp_path / "graph.onnx")
    request = BuildRequest(component.name, path, component.inputs, (made.profile,), "0" * 64, 1 << 28, ("12.0",))
    assert build_engine(load_tensorrt("tensorrt_rtx"), request).plan
