"""What a hostile file may ask before a parser sees it."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import onnx
import pytest
import tiny_bundles
from onnx import helper

from perceiver_runtime import BundleError, load_bundle, open_session
from perceiver_runtime.errors import FeedError
from perceiver_runtime.format import graph_limits, strict_json
from perceiver_runtime.format.graph_limits import check_limits
from perceiver_runtime.processing.files import read_image

OPSETS = [helper.make_opsetid("", 18), helper.make_opsetid("f", 1)]


def function(name: str, calls: list[str]) -> Any:
    """A function that calls others, or operators of ONNX, one after the other."""
    names = [f"v{i}" for i in range(len(calls))] + ["out"]
    nodes = [
        helper.make_node(call, [names[i]], [names[i + 1]], domain="f" if call.startswith("f") else "")
        for i, call in enumerate(calls)
    ]
    return helper.make_function("f", name, ["v0"], ["out"], nodes, OPSETS)


def model(functions: list[Any], nodes: list[Any] | None = None) -> onnx.ModelProto:
    made = onnx.ModelProto(ir_version=9, opset_import=OPSETS, functions=functions)
    made.graph.node.extend(nodes or [helper.make_node(functions[-1].name, ["x"], ["y"], domain="f")])
    return made


def nested(depth: int) -> onnx.ModelProto:
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [], [])
    for _ in range(depth):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "g", [], [])
    return onnx.ModelProto(ir_version=9, opset_import=OPSETS, graph=graph)


def test_functions_are_counted_by_their_calls() -> None:
    check_limits(model([function("f0", ["Neg"]), function("f1", ["f0", "f0"])]).SerializeToString())
    bomb = [function("f0", ["Neg"]), *(function(f"f{i}", [f"f{i - 1}"] * 2) for i in range(1, 30))]
    with pytest.raises(ValueError, match=r"more than 50,000 nodes once its functions are called"):
        check_limits(model(bomb).SerializeToString())
    with pytest.raises(ValueError, match="deep, or themselves"):
        check_limits(model([function("f0", ["f1"]), function("f1", ["f0"])]).SerializeToString())


def test_nesting_nodes_and_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    check_limits(nested(7).SerializeToString())
    with pytest.raises(ValueError, match="subgraphs nested more than 8 deep"):
        check_limits(nested(9).SerializeToString())
    content = nested(7).SerializeToString()
    monkeypatch.setattr(graph_limits, "MAX_NODES", 5)
    with pytest.raises(ValueError, match="more than 5 nodes"):
        check_limits(content)
    monkeypatch.setattr(graph_limits, "MAX_NODES", 50)
    monkeypatch.setattr(graph_limits, "MAX_FIELDS", 20)
    with pytest.raises(ValueError, match="more than 20 fields"):
        check_limits(content)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_backends_see_no_graph_beyond_the_limits(copy: Path, backend: str) -> None:
    head = onnx.load(copy / "onnx/head.onnx")
    head.functions.extend([function("f0", ["Neg"]), *(function(f"f{i}", [f"f{i - 1}"] * 2) for i in range(1, 30))])
    head.opset_import.append(OPSETS[1])
    head.graph.node.append(helper.make_node("f29", ["latents"], ["y"], domain="f"))
    onnx.save(head, copy / "onnx/head.onnx")
    tiny_bundles.rehash(copy, "onnx/head.onnx")
    with pytest.raises(BundleError, match=r"head\.onnx.*more than 50,000 nodes"):
        open_session(copy, backend, 1)


def test_sparse_files(copy: Path) -> None:
    """A file of 4 TiB without content would be hashed for an hour."""
    path = copy / "golden/sample-0.safetensors"
    with path.open("wb") as file:
        os.truncate(file.fileno(), 1 << 42)
    tiny_bundles.change(copy, lambda m: m["files"]["golden/sample-0.safetensors"].update(size=1 << 42))
    with pytest.raises(BundleError, match=r"expected 4,398,046,511,104 bytes on disk, got a sparse file"):
        load_bundle(copy)


def test_values_of_json() -> None:
    with pytest.raises(ValueError, match="more than 2,000,000 values"):
        strict_json.loads("[" + "0," * 2_000_001 + "0]")


def test_sizes_that_a_header_claims(tmp_path: Path) -> None:
    """A PNG of 8 x 8 pixels that says 8,000 x 8,000."""
    image = pytest.importorskip("PIL.Image")
    image.new("L", (8, 8)).save(tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 8000, 8000) + data[24:29]
    (tmp_path / "x.png").write_bytes(data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:])
    with pytest.raises(FeedError, match="got 8000 x 8000 in"):
        read_image(tmp_path / "x.png")
