"""Fold a linear layer into the linear layers whose sum it reads.

    (r + h W + b) H = r H + h (W H) + b H

The last residual of a decoder is read only by its narrow output projection H: folded with it, the second matrix of the
MLP, which is as wide as the queries, costs no more than the output projection. Two successive layers (a projection
before a modality's own head) are the same case without `r`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from perceiver_exporters.ir.builder import NodeBuilder, replace
from perceiver_exporters.ir.flops import gigaflop
from perceiver_exporters.ir.sized import Shapes, SizedGraph, static_shapes
from perceiver_exporters.rules.matchers.attention import Projection, array_of, biased, producer, projection
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict


@dataclass(frozen=True)
class Head:
    """A linear layer (D, F) with result `made`, and the terms of its input: linear layers (K, D) and others."""

    made: ir.Value
    output: Projection
    layers: tuple[Projection, ...]
    others: tuple[ir.Value, ...]

    @property
    def name(self) -> str:
        """Name of the module."""
        return str(self.output.product.name).rsplit("/", 1)[0]


def apply(sized: SizedGraph, context: Context) -> Verdict:
    """Fold one head after the other while that takes fewer FLOPs."""
    folded: list[str] = []
    while True:
        costs = _costs(sized)
        head = next((head for head, (now, then) in costs if then < now), None)
        if head is None:
            break
        _fold(sized.graph, head)
        common.RemoveUnusedNodesPass()(sized.model)  # folded layers must not match again
        sized.invalidate()
        folded.append(f"{', '.join(_module(layer) for layer in head.layers)} into {head.name}")
    if folded:
        return Applied("; ".join(folded))
    refused = [f"{head.name} folded {gigaflop(then)}, as it is {gigaflop(now)}" for head, (now, then) in costs]
    return Declined("; ".join(refused) or "no linear layer is read by another linear layer only")


def _costs(sized: SizedGraph) -> list[tuple[Head, tuple[int, int]]]:
    heads = list(_heads(sized.graph))
    shapes = static_shapes(sized.opt) if heads else {}
    return [(head, _flops(head, shapes)) for head in heads]


def _heads(graph: ir.Graph) -> Iterator[Head]:
    for node in graph:
        made = biased(node)
        output = projection(made) if node.op_type == "MatMul" else None
        if output is None or output.product is not node:
            continue
        terms = list(_terms(output.x))
        layers = tuple(layer for term in terms if (layer := _own(term)) is not None)
        if layers and all(_width(term) == len(output.weight) for term in terms):  # no broadcast along the channels
            yield Head(made, output, layers, tuple(term for term in terms if _own(term) is None))


def _terms(value: ir.Value) -> Iterator[ir.Value]:
    """The terms of a sum whose value has only one reader."""
    node = producer(value, "Add") if _read_once(value) else None
    if node is None or projection(value) is not None:
        yield value
        return
    for term in node.inputs:
        assert term is not None
        yield from _terms(term)


def _own(value: ir.Value) -> Projection | None:
    """The linear layer that computes a value with a single reader, or None."""
    found = projection(value) if _read_once(value) else None
    return found if found is not None and _read_once(found.product.outputs[0]) else None


def _width(value: ir.Value) -> object:
    """Channels of a term. Layers that a fold has just added have no inferred shape: their weight gives the width."""
    found = projection(value)
    if found is not None:
        return found.weight.shape[1]
    return value.shape[-1] if value.shape else None


def _read_once(value: ir.Value) -> bool:
    return len(list(value.uses())) == 1 and not value.is_graph_output()


def _flops(head: Head, shapes: Shapes) -> tuple[int, int]:
    rows = int(np.prod(shapes[str(head.output.product.outputs[0].name)][:-1]))
    width, narrow = head.output.weight.shape
    live = sum(array_of(term) is None for term in head.others)
    inner = sum(layer.weight.shape[0] for layer in head.layers)
    return 2 * rows * width * (inner + narrow), 2 * rows * narrow * (inner + live * width)


def _fold(graph: ir.Graph, head: Head) -> None:
    """Replace head and layers by one product each, named after the layer whose input it reads, as INT8 plans expect."""
    matrix, bias = head.output.weight.astype(np.float64), head.output.bias.astype(np.float64)
    build = NodeBuilder(graph, head.name, head.output.product)
    summed: list[ir.Value] = []
    for layer in head.layers:
        own = NodeBuilder(graph, _module(layer), head.output.product)
        summed.append(own("MatMul", layer.x, layer.weight.astype(np.float64) @ matrix, name=f"into_{head.name}"))
        bias = bias + layer.bias.astype(np.float64) @ matrix
    for term in head.others:
        constant = array_of(term)
        if constant is None:
            summed.append(build("MatMul", term, matrix, name="direct"))
        else:
            bias = bias + constant.astype(np.float64) @ matrix
    total = reduce(lambda left, right: build("Add", left, right, name="sum"), summed)
    replace(head.made, build("Add", total, bias, name="bias") if bias.any() else total)


def _module(layer: Projection) -> str:
    return str(layer.product.name).rsplit("/", 1)[0]


FOLDED_HEAD = RewriteRule("folded-head", "linear layers folded into the linear layer that reads their sum", apply)
