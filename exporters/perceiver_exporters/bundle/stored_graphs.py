"""Graphs of a bundle, parsed from the bytes that were hashed."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from perceiver_runtime.bundle import Bundle
from perceiver_runtime.errors import BundleError
from perceiver_runtime.format.external_data import checked, inlined


def stored_proto(bundle: Bundle, path: str) -> onnx.ModelProto:
    """A graph of the bundle with its weights in memory. Raises BundleError."""
    return _parsed(bundle, path, inlined(bundle, path, bundle.read(path)))


def stored_graph(bundle: Bundle, path: str) -> ir.Model:
    """A graph of the bundle whose external weights are memory-mapped on access. Raises BundleError."""
    proto = _parsed(bundle, path, checked(bundle, path, bundle.read(path)))
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # onnx_ir raises many types for a graph that contradicts itself
        raise BundleError(f"{bundle.file(path)}: can't load it: no right ONNX graph: {error}; export again") from error
    ir.external_data.set_base_dir(model.graph, bundle.file(path).parent)
    return model


def _parsed(bundle: Bundle, path: str, content: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # of protobuf, which has no public name in onnx
        raise BundleError(f"{bundle.file(path)}: can't load it: no ONNX graph: {error}; export again") from error
