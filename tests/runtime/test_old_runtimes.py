"""A graph that this ONNX Runtime is too old for is not a bad bundle: what is missing is on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from tiny_bundles import rehash

from perceiver_runtime import BundleError, open_session
from perceiver_runtime.backends.versions import refusal
from perceiver_runtime.errors import UnavailableError

ENCODER = "onnx/encoder.onnx"


def _newer_ir(graph: onnx.ModelProto) -> None:
    graph.ir_version = 99


def _newer_operators(graph: onnx.ModelProto) -> None:
    graph.opset_import[0].version = 99


@pytest.mark.parametrize(("edit", "what"), [(_newer_ir, "IR version"), (_newer_operators, "operator set")])
def test_what_is_too_new_is_named(copy: Path, edit: Callable[[onnx.ModelProto], None], what: str) -> None:
    graph = onnx.load(copy / ENCODER)
    edit(graph)
    onnx.save(graph, copy / ENCODER)
    rehash(copy, ENCODER)
    expected = (
        rf"encoder\.onnx: expected an onnxruntime that reads {what} 99, got onnxruntime .*, which reads up to \d+"
    )
    with pytest.raises(UnavailableError, match=expected):
        open_session(copy)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Load model failed: Unsupported model IR version: 10, max supported IR version: 9", r"onnxruntime>=1\.18"),
        (
            "ONNX Runtime only *guarantees* support for models stamped with official released onnx opset versions. "
            "Opset 20 is under development and support for this is limited. The operator schemas and or other "
            "functionality may change before next ONNX release. Current official support for domain ai.onnx is till "
            "opset 19.",
            r"onnxruntime>=1\.17",
        ),
        (
            "NOT_IMPLEMENTED : Could not find an implementation for MatMul(13) node with name 'x'",
            r"no kernel .* MatMul",
        ),
    ],
)
def test_the_release_that_is_needed_is_named(said: str, expected: str) -> None:
    error = refusal("encoder.onnx", "1.16.3", RuntimeError(said))
    assert isinstance(error, UnavailableError)
    assert error.exit_code == 4
    with pytest.raises(UnavailableError, match=rf"1\.16\.3.*{expected}"):
        raise error


def test_anything_else_is_the_graphs_fault() -> None:
    assert isinstance(refusal("encoder.onnx", "1.16.3", RuntimeError("Protobuf parsing failed.")), BundleError)
