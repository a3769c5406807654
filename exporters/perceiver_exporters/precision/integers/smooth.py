"""Scale migration (SmoothQuant, arXiv 2211.10438) from normalised activations into weights.

One channel with outliers widens the range of the whole tensor, and all other channels lose bits. Where only weighted
products read a LayerNormalization, each channel is divided by s in the normalisation's scale and bias, and multiplied
by s in the weights' rows. Every s is a power of two, so the FP32 graph computes the same bits as before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.graph import constant_of, has_constant_weight
from perceiver_exporters.precision.calibration.statistics import Extremes, Statistics
from perceiver_exporters.precision.integers.layers import layer_of, weighted
from perceiver_runtime.tensors import Array

ALPHA = 0.5
"""Share of the activations' spread that moves into the weights; the paper's choice."""


@dataclass(frozen=True)
class _Site:
    """A normalisation and all products that read it."""

    norm: ir.Node
    products: tuple[ir.Node, ...]


def divisors(model: ir.Model, statistics: Statistics) -> dict[str, Extremes]:
    """Divisors of the input channels of every layer behind a normalisation that can be smoothed."""
    found: dict[str, Extremes] = {}
    for site in _sites(model.graph):
        peaks = statistics.tensors[str(site.norm.outputs[0].name)].peaks
        rows = np.max([_rows(product) for product in site.products], axis=0)
        divisor = _powers_of_two(peaks, rows)
        found |= {layer_of(product): divisor for product in site.products}
    return found


def smooth(model: ir.Model, chosen: Mapping[str, Extremes]) -> ir.Model:
    """Apply the divisors of the layers to the graph, in place, and return it."""
    for site in _sites(model.graph):
        divisor = chosen.get(layer_of(site.products[0]))
        if divisor is not None:
            for i in range(1, len(site.norm.inputs)):
                _replace(model.graph, site.norm, i, divisor)
            for product in site.products:
                factor = divisor[None, :] if _transposed(product) else divisor[:, None]
                _replace(model.graph, product, 1, 1 / factor)
    return model


def _sites(graph: ir.Graph) -> Iterator[_Site]:
    """Normalisations to smooth. A layer that is also used elsewhere is left out: its other inputs are not divided."""
    uses = Counter(layer_of(node) for node in weighted(graph))
    for node in graph:
        if node.op_type == "LayerNormalization" and all(constant_of(v) is not None for v in node.inputs[1:]):
            readers = tuple(node.outputs[0].consumers())
            if readers and not node.outputs[0].is_graph_output() and all(_smoothable(r, node) for r in readers):
                here = Counter(map(layer_of, readers))
                if all(uses[layer] == count for layer, count in here.items()):
                    yield _Site(node, readers)


def _smoothable(product: ir.Node, norm: ir.Node) -> bool:
    if product.op_type not in ("MatMul", "Gemm") or constant_of(product.inputs[1]) is None:
        return False
    if not has_constant_weight(product):
        return False
    return product.inputs[0] is norm.outputs[0] and not product.attributes.get_int("transA", 0)


def _transposed(product: ir.Node) -> bool:
    return bool(product.attributes.get_int("transB", 0))


def _rows(product: ir.Node) -> Array:
    """Largest magnitude of the weights that each input channel meets."""
    weight = constant_of(product.inputs[1])
    assert weight is not None
    peaks: Array = np.abs(weight.numpy()).max(axis=0 if _transposed(product) else 1)
    return peaks


def _powers_of_two(activations: Array, weights: Array) -> Extremes:
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = ALPHA * np.log2(activations) - (1 - ALPHA) * np.log2(weights)
    exponents = np.where(np.isfinite(exponents), exponents, 0.0)
    made: Extremes = np.exp2(np.round(exponents)).astype(np.float32)
    return made


def _replace(graph: ir.Graph, node: ir.Node, index: int, divisor: Array) -> None:
    """Give one reader its own changed constant: equal constants are shared between layers."""
    value = node.inputs[index]
    tensor = constant_of(value)
    assert value is not None
    assert tensor is not None
    name = f"{node.name}.smooth.{index}"
    made = ir.tensor(np.ascontiguousarray(tensor.numpy() / divisor), name=name)
    fresh = ir.Value(name=name, shape=value.shape, type=value.type, const_value=made)
    graph.register_initializer(fresh)
    node.replace_input_with(index, fresh)
    if not value.uses() and not value.is_graph_output():
        graph.initializers.pop(str(value.name))
