"""External-data layout: tensors of 1 KiB and more are stored outside the graph, shared ones once.

| Tensors | Stored in |
|---|---|
| of 1 KiB and more, used by several components | `onnx/shared.weights` |
| other tensors of 1 KiB and more, in a component of 16 MiB and more | `onnx/<component>.weights` |
| of 1 KiB and more, used several times by one component | `onnx/<component>.weights`, once |
| all others | the graph itself |

A file of one component does not change when another component is trained further. External files are memory-mapped by
the backends, and are in the directory of the graphs, as ONNX requires.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_ir as ir

SHARED = "shared.weights"
MIN_TENSOR_BYTES = 1 << 10
MIN_COMPONENT_BYTES = 16 << 20
ALIGNMENT = 4096
"""Offset of each tensor in a file, in bytes: backends that map single tensors need them to start on a page."""


def save_graphs(graphs: Mapping[str, ir.Model], directory: Path) -> dict[str, str]:
    """Write each component's graph to `directory/onnx`, and its external weights. Returns paths by component.

    The same graphs give the same bytes.
    """
    folder = directory / "onnx"
    folder.mkdir()
    large = {name: _large(graph) for name, graph in graphs.items()}
    holders = Counter(digest for tensors in large.values() for digest in set(tensors.values()))
    shared = _Region(folder / SHARED)
    for name, graph in graphs.items():
        own = _Region(folder / f"{name}.weights")
        external = sum(_bytes(value) for value in large[name]) >= MIN_COMPONENT_BYTES
        copies = Counter(large[name].values())
        for value, digest in large[name].items():
            if holders[digest] > 1:
                shared.move(value, digest)
            elif external or copies[digest] > 1:
                own.move(value, digest)
        (folder / f"{name}.onnx").write_bytes(serialize(graph))
    return {name: f"onnx/{name}.onnx" for name in graphs}


def serialize(graph: ir.Model) -> bytes:
    """The graph as bytes, with the lowest IR version that its operator sets allow: old runtimes reject newer ones."""
    proto = ir.to_proto(graph)
    proto.ir_version = onnx.helper.find_min_ir_version_for(list(proto.opset_import), ignore_unknown=True)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


class _Region:
    """An external file under construction, in which tensors of equal content are stored once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offsets: dict[str, int] = {}

    def move(self, value: ir.Value, digest: str) -> None:
        """Replace an initializer's tensor by a reference to this file; new bytes are appended."""
        tensor = _tensor(value)
        content = tensor.tobytes()
        if digest not in self._offsets:
            self._offsets[digest] = self._append(content)
        value.const_value = ir.ExternalTensor(
            self._path.name,
            self._offsets[digest],
            len(content),
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=str(value.name),
            base_dir=self._path.parent,
        )

    def _append(self, content: bytes) -> int:
        with self._path.open("ab") as file:
            offset = -(-file.tell() // ALIGNMENT) * ALIGNMENT
            file.truncate(offset)
            file.seek(offset)
            file.write(content)
        return offset


def _large(graph: ir.Model) -> dict[ir.Value, str]:
    """Initializers of 1 KiB and more, each with a hash of its type and content.

    The type counts because zeros of two types may have equal bytes, and TensorRT rejects one address with two lengths.
    """
    values = (value for value in graph.graph.initializers.values() if _bytes(value) >= MIN_TENSOR_BYTES)
    return {value: _digest(_tensor(value)) for value in values}


def _digest(tensor: ir.TensorProtocol) -> str:
    return hashlib.sha256(tensor.dtype.name.encode() + tensor.tobytes()).hexdigest()


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    assert value.const_value is not None  # an initializer of a traced graph always has its data
    return value.const_value


def _bytes(value: ir.Value) -> int:
    return _tensor(value).nbytes
