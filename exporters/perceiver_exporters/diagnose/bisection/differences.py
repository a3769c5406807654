"""Differences between two graphs that should be equal, node by node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.graph import constant_of
from perceiver_runtime.measure.compare import relative_l2


@dataclass(frozen=True)
class Difference:
    """Property `what` of a node is `got`; a fresh export has `expected`."""

    node: str
    what: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.node}: {self.what} is {self.got}, a fresh export has {self.expected}"


def differences(expected: ir.Model, got: ir.Model, floor: float) -> tuple[Difference, ...]:
    """Nodes of `expected`, in order, that are missing or different in `got`, then additional nodes of `got`.

    Constants whose relative L2 distance is below `floor` count as equal.
    """
    theirs = {str(node.name): node for node in got.graph}
    found: list[Difference] = []
    for node in expected.graph:
        name = str(node.name)
        found += _node(node, theirs.pop(name), floor) if name in theirs else [_absent(node, got)]
    return (*found, *(Difference(name, "node", "none", node.op_type) for name, node in theirs.items()))


def _absent(node: ir.Node, got: ir.Model) -> Difference:
    """A node under another name may still make the value."""
    made = {str(value.name): other for other in got.graph for value in other.outputs}
    other = made.get(str(node.outputs[0].name))
    return Difference(str(node.name), "node", node.op_type, f"{other.op_type} ({other.name})" if other else "none")


def _node(expected: ir.Node, got: ir.Node, floor: float) -> Iterator[Difference]:
    name = str(expected.name)
    if (expected.domain, expected.op_type) != (got.domain, got.op_type):
        yield Difference(name, "operator", expected.op_type, got.op_type)
    for key in sorted({*expected.attributes, *got.attributes}):
        ours, theirs = _attribute(expected, key), _attribute(got, key)
        if ours != theirs:
            yield Difference(name, f"attribute {key}", ours, theirs)
    for i in range(max(len(expected.inputs), len(got.inputs))):
        ours_, theirs_ = _input(expected, i), _input(got, i)
        if difference := _value(ours_, theirs_, floor):
            yield Difference(name, f"input {i}", *difference)
    outputs = [[str(value.name) for value in node.outputs] for node in (expected, got)]
    if outputs[0] != outputs[1]:
        yield Difference(name, "outputs", ", ".join(outputs[0]), ", ".join(outputs[1]))


def _attribute(node: ir.Node, key: str) -> str:
    attribute = node.attributes.get(key)
    return "default" if attribute is None else str(attribute.value)


def _input(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _value(expected: ir.Value | None, got: ir.Value | None, floor: float) -> tuple[str, str] | None:
    """What was expected and what came, or None if they are the same."""
    ours, theirs = constant_of(expected), constant_of(got)
    if ours is not None and theirs is not None:
        return _constants(ours, theirs, floor)
    names = _name(expected), _name(got)
    return names if names[0] != names[1] else None


def _constants(expected: ir.TensorProtocol, got: ir.TensorProtocol, floor: float) -> tuple[str, str] | None:
    if (expected.dtype, tuple(expected.shape)) != (got.dtype, tuple(got.shape)):
        return _type(expected), _type(got)
    a, b = expected.numpy(), got.numpy()
    if np.array_equal(a, b) or relative_l2(a, b) <= floor:
        return None
    return f"{_type(expected)} {_extract(a)}", f"{_extract(b)}, {relative_l2(a, b):.2g} away"


def _name(value: ir.Value | None) -> str:
    return "none" if value is None else str(value.name)


def _type(tensor: ir.TensorProtocol) -> str:
    return f"{tensor.dtype.name.lower()}{list(tensor.shape.numpy())}"


def _extract(array: np.ndarray) -> str:
    flat = array.reshape(-1)
    return ", ".join(f"{x:.5g}" for x in flat[:3].astype(float)) + (", ..." if flat.size > 3 else "")
