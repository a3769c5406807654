"""Bundles of one component, `x` (batch, 16, 32) to `y`, into which a test puts the graph it wants."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tiny_bundles
from onnx import TensorProto, helper, numpy_helper

from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec

X = TensorSpec("x", "float32", ("batch", 16, 32))
Y = TensorSpec("y", "float32", ("batch", 16, 32))


def bundle(
    directory: Path,
    nodes: Sequence[Any],
    weights: dict[str, Array] | None = None,
    *,
    opset: int = 20,
    edit: Callable[[dict[str, Any]], object] = lambda _: None,
) -> Path:
    """A bundle whose only graph has these nodes."""
    part = tiny_bundles.Part("net", (X,), (Y,), (helper.make_node("Identity", ["x"], ["y"]),), {}, lambda x: {"y": x})
    pipeline = Pipeline((X,), (Y,), (Step("net", {"x": "x"}, {"y": "y"}, "encode"),))
    model = tiny_bundles.Model((part,), pipeline, Profile("default", {"batch": Range(1, 1, 8)}))
    tiny_bundles.write(directory, model, {"x": np.zeros((1, 16, 32), np.float32)})
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ("batch", 16, 32)) for n in ("x", "y")]
    initializers = [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "net", infos[:1], infos[1:], initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.save(made, directory / "onnx/net.onnx")
    tiny_bundles.rehash(directory, "onnx/net.onnx")
    return tiny_bundles.change(directory, edit)


def attention() -> list[Any]:
    """ONNX Attention with four heads, of three tensors: TensorRT-RTX 1.7.1 crashes where all three are one."""
    mixed = node("Attention", "x keys values", "y", q_num_heads=4, kv_num_heads=4)
    return [node("Relu", "x", "keys"), node("Neg", "x", "values"), mixed]


def node(kind: str, inputs: str, output: str, **attributes: Any) -> Any:
    """A node; inputs are separated by blanks, `-` leaves one out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(kind, names, [output], name=f"{kind}_{output}", **attributes)
