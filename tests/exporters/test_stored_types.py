"""Weights of two types never share a place, whatever their bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from perceiver_exporters.bundle.storage import MIN_COMPONENT_BYTES, save_graphs


def test_zeros_of_two_types_lie_apart_and_equal_tensors_together(tmp_path: Path) -> None:
    weights = {
        "large": np.ones(MIN_COMPONENT_BYTES // 4, np.float32),
        "single": np.zeros(1024, np.float32),
        "half": np.zeros(2048, np.float16),
        "again": np.zeros(1024, np.float32),
    }
    kept = [numpy_helper.from_array(array, name) for name, array in weights.items()]  # type: ignore[arg-type]
    outputs = [helper.make_tensor_value_info(f"{w.name}_out", w.data_type, list(w.dims)) for w in kept]
    nodes = [helper.make_node("Identity", [w.name], [f"{w.name}_out"]) for w in kept]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])], outputs, kept)
    path = tmp_path / save_graphs({"net": ir.from_proto(helper.make_model(graph))}, tmp_path)["net"]
    stored = onnx.load(path, load_external_data=False).graph.initializer
    offsets = {w.name: next(e.value for e in w.external_data if e.key == "offset") for w in stored}
    assert offsets["single"] == offsets["again"]
    assert len(set(offsets.values())) == 3
