"""What the exports of the shipped models contain, reduced to hashes and to numbers that other processors reproduce.

    python tests/baseline/exports.py            # record exports.json

A commit that changes exports.json changes no package code.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

import perceiver_deploy as pd
from perceiver_runtime.bundle import Bundle, load_bundle
from perceiver_runtime.golden import load_golden

MODELS = ("fashion-perceiver", "language-identifier", "emoji-namer")
PRECISIONS = ("fp32", "fp16", "int8")
RECORD = Path(__file__).with_name("exports.json")


def describe(path: Path, precision: str) -> dict[str, Any]:
    """Structure, exact content and rounded content of a bundle."""
    bundle = load_bundle(path)
    described: dict[str, Any] = {entry.name: _graph(bundle, entry.onnx) for entry in bundle.manifest.components}
    golden = {f"{i}/{key}": array for i, s in enumerate(load_golden(bundle)) for key, array in s.tensors().items()}
    described["golden"] = _arrays(golden)
    if precision == "fp32":
        with pd.open_session(path, backend="onnxruntime") as session:
            outputs = [session.run(sample.feeds) for sample in load_golden(bundle)]
        described["outputs"] = _arrays({f"{i}/{name}": a for i, made in enumerate(outputs) for name, a in made.items()})
    return described


def export(model: str, precision: str, directory: Path) -> Path:
    """The bundle, calibrated without a cache."""
    pd.export(model, directory / f"{model}-{precision}", precision=precision)
    return directory / f"{model}-{precision}"


def processor() -> str:
    """The processor's name and a hash of its features: bytes are compared only where both are the same."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    fields = dict(reversed([(key.strip(), value.strip()) for key, _, value in (line.partition(":") for line in lines)]))
    features = " ".join(sorted(fields.get("flags", "").split()))
    return f"{fields.get('model name', 'unknown')} {_sha256(features.encode())[:12]}"


def _graph(bundle: Bundle, path: str) -> dict[str, Any]:
    model = onnx.load(bundle.file(path))
    graph = _Graph(model.graph)
    nodes = list(graph.walk())
    return {
        "structure": _sha256(json.dumps([shape for shape, _ in nodes], sort_keys=True).encode()),
        **_arrays({str(i): array for i, array in enumerate(array for _, arrays in nodes for array in arrays)}),
    }


class _Graph:
    """A graph with its values numbered in the order in which its outputs reach them."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._makers = {name: node for node in graph.node for name in node.output}
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._numbers: dict[str, int] = {value.name: i for i, value in enumerate(graph.input)}

    def walk(self) -> Iterator[tuple[Any, list[np.ndarray]]]:
        """Each node's structure and the constants that it is the first to read; last, the outputs."""
        done: set[int] = set()
        pending = [(value.name, False) for value in reversed(self._graph.output)]
        while pending:
            name, ready = pending.pop()
            node = self._makers.get(name)
            if node is None or id(node) in done:
                continue
            if not ready:
                pending.append((name, True))
                pending += [(source, False) for source in reversed(node.input)]
                continue
            done.add(id(node))
            yield self._node(node)
        yield [self._numbers[value.name] for value in self._graph.output], []

    def _node(self, node: onnx.NodeProto) -> tuple[Any, list[np.ndarray]]:
        arrays, inputs = [], []
        for name in node.input:
            if name in self._constants and name not in self._numbers:
                array = numpy_helper.to_array(self._constants[name])
                arrays.append(array)
                inputs.append([self._number(name), str(array.dtype), list(array.shape)])
            else:
                inputs.append(self._number(name) if name else None)  # type: ignore[arg-type]
        given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        for key, value in given.items():
            if isinstance(value, onnx.TensorProto):
                arrays.append(numpy_helper.to_array(value))
                given[key] = "tensor"
        attributes = {k: repr(v) for k, v in given.items()}
        return [node.domain, node.op_type, attributes, inputs, [self._number(n) for n in node.output]], arrays

    def _number(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))


def _arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Hash of the bytes, and a random projection of each array beside its norm."""
    digest = hashlib.sha256()
    projections = []
    for key in sorted(arrays):
        array = np.ascontiguousarray(arrays[key])
        digest.update(f"{key} {array.dtype} {array.shape}".encode() + array.tobytes())
        flat = np.nan_to_num(array.astype(np.float64).reshape(-1), posinf=1e30, neginf=-1e30)
        weights = np.random.default_rng(0).standard_normal(flat.size)
        projections.append([float(f"{weights @ flat:.8g}"), float(f"{np.linalg.norm(flat):.8g}")])
    return {"bytes": digest.hexdigest(), "projections": projections}


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def main() -> None:
    """Record all exports."""
    with tempfile.TemporaryDirectory() as folder:
        record = {
            f"{model} {precision}": describe(export(model, precision, Path(folder)), precision)
            for model in MODELS
            for precision in PRECISIONS
        }
    RECORD.write_text(json.dumps({"processor": processor(), "exports": record}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
