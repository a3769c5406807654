"""BF16 bundles on processors without BF16 kernels: the same rounding in FP32 arithmetic.

Each BF16 value becomes an FP32 value rounded to BF16 by two casts. BF16 kernels compute the same up to the order of
their FP32 sums, so a bundle for a GPU can be verified on a CPU.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx_ir as ir

from perceiver_exporters.bundle.stored_graphs import stored_graph
from perceiver_runtime.bundle import Bundle, file_entry, load_bundle, write_manifest

LOW, SINGLE = ir.DataType.BFLOAT16, ir.DataType.FLOAT


def widen(model: ir.Model) -> ir.Model:
    """Replace BF16 by rounded FP32, in place, and return the model."""
    for value in model.graph.initializers.values():
        if value.dtype == LOW and value.const_value is not None:
            value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
            value.type = ir.TensorType(SINGLE)
    for node in list(model.graph):
        for output in node.outputs:
            if output.dtype == LOW:
                output.type = ir.TensorType(SINGLE)
                _round(model.graph, node, output)
        if node.op_type == "Cast" and node.attributes["to"].as_int() == LOW:
            node.attributes["to"] = ir.AttrInt64("to", SINGLE)
    return model


@contextmanager
def runnable_bundle(bundle: Bundle, backend: str) -> Iterator[Bundle]:
    """The bundle, or a copy that rounds to BF16 in FP32 where the backend has no BF16 kernels."""
    if bundle.manifest.precision != "bf16" or backend != "onnxruntime-exact":
        yield bundle
        return
    with tempfile.TemporaryDirectory() as folder:
        yield load_bundle(widened_bundle(bundle, Path(folder)))


def widened_bundle(loaded: Bundle, directory: Path) -> Path:
    """Copy a BF16 bundle to an empty directory, with widened graphs."""
    graphs = {component.onnx for component in loaded.manifest.components}
    for relative in loaded.manifest.files:
        (directory / relative).parent.mkdir(parents=True, exist_ok=True)
        if relative in graphs:
            ir.save(widen(stored_graph(loaded, relative)), directory / relative)
        else:
            loaded.files[relative].copy(directory / relative)
    files = {path: file_entry(directory / path) for path in loaded.manifest.files}
    write_manifest(directory, dataclasses.replace(loaded.manifest, files=files))
    return directory


def _round(graph: ir.Graph, node: ir.Node, output: ir.Value) -> None:
    name = str(output.name)
    low = ir.Value(name=f"{name}/rounded", shape=output.shape, type=ir.TensorType(LOW))
    single = ir.Value(name=f"{name}/widened", shape=output.shape, type=ir.TensorType(SINGLE))
    readers = list(output.uses())
    down = ir.node("Cast", [output], {"to": LOW}, outputs=[low], name=low.name)
    up = ir.node("Cast", [low], {"to": SINGLE}, outputs=[single], name=single.name)
    graph.insert_after(node, [down, up])
    for reader, index in readers:
        reader.replace_input_with(index, single)
