"""Attention as one layer of the network: products and softmax that were parsed, replaced by TensorRT's own operator.

It is done on the parsed network, not in ONNX: nothing but TensorRT reads a graph on a device, and a bundle has one
graph for all versions. Matched are, with masks and casts between them,

    MatMul(softmax(MatMul(query, key^T)), value)

with query (B, heads, N, E), key (B, heads, M, E) and value (B, heads, M, F).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Literal

import numpy as np

from perceiver_runtime.errors import UsageError
from perceiver_runtime.tensorrt.api import (
    IAttention,
    IAttentionOutputLayer,
    IConstantLayer,
    IElementWiseLayer,
    ILayer,
    IMatrixMultiplyLayer,
    INetworkDefinition,
    IShuffleLayer,
    ISoftMaxLayer,
    ITensor,
)
from perceiver_runtime.tensorrt.dialect import Dialect

FP16_LIMIT = 65504.0
_VIEWS = ("CAST", "IDENTITY", "SHUFFLE", "SQUEEZE", "UNSQUEEZE")
MAX_WIDTH, WIDTH_STEP = 256, 8
"""Head widths that fused kernels take."""
FUSED_TYPES = ("HALF", "BF16")
"""Types that fused kernels take; in FP32 the operator would be taken apart again."""


Form = Literal["products", "operator"]
"""As the products and softmax of the graph, or as an operator where fused kernels may take it."""


@dataclass(frozen=True)
class Operators:
    """What became of the attention of a network: `replaced` by operators, of which some `masked`; `kept`, and why."""

    replaced: tuple[str, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()
    masked: bool = False

    def __str__(self) -> str:
        reasons = dict.fromkeys(reason for _, reason in self.kept)
        left = f", {len(self.kept)} as products ({'; '.join(reasons)})" if self.kept else ""
        return f"{len(self.replaced)} as operators{left}"


@dataclass(frozen=True)
class _Site:
    """One attention; `limit` is what its scores are clamped to: the largest FP16 number, or the lowest if masked."""

    name: str
    scores: IMatrixMultiplyLayer
    weighted: IMatrixMultiplyLayer
    limit: ITensor = None


class _Links:
    """Producers and readers of a network's tensors, by name."""

    def __init__(self, network: INetworkDefinition) -> None:
        self.layers: list[ILayer] = [network.get_layer(index) for index in range(network.num_layers)]
        self.producer: dict[str, ILayer] = {}
        self.readers: defaultdict[str, list[tuple[ILayer, int]]] = defaultdict(list)
        outputs: list[ITensor] = [network.get_output(index) for index in range(network.num_outputs)]
        self.outputs = {tensor.name for tensor in outputs}
        for layer in self.layers:
            for index in range(layer.num_outputs):
                self.producer[layer.get_output(index).name] = layer
            for index in range(layer.num_inputs):
                tensor: ITensor = layer.get_input(index)
                if tensor is not None:
                    self.readers[tensor.name].append((layer, index))


def decompose_unfused(trt: ModuleType, network: INetworkDefinition) -> None:
    """Let ONNX attention run unfused where no fused kernel takes its type or width; otherwise such a build fails."""
    for index in range(network.num_layers):
        layer: ILayer = network.get_layer(index)
        if layer.type == trt.LayerType.ATTENTION_OUTPUT:
            # Networks give layers as their base class; the bindings' own way to the derived one is to say so.
            layer.__class__ = trt.IAttentionOutputLayer
            output: IAttentionOutputLayer = layer
            attention: IAttention = output.attention
            attention.decomposable = True


def use_operators(trt: ModuleType, network: INetworkDefinition, rules: Dialect) -> Operators:
    """Replace the attention of a parsed network by operators, where a fused kernel may take it. Raises UsageError."""
    if not rules.attention:
        raise UsageError(f"attention operator: expected TensorRT 10.14 or newer, or TensorRT-RTX, got {rules.name}")
    links = _Links(network)
    replaced, kept, masked = [], [], False
    for layer in links.layers:
        if layer.type != trt.LayerType.SOFTMAX:
            continue
        found = _site(trt, links, layer)
        if found is None:
            kept.append((layer.name, "no form that is known"))
        elif reason := _unfused(found):
            kept.append((found.name, reason))
        else:
            _replace(trt, network, links, found)
            replaced.append(found.name)
            masked |= found.limit is not None
    return Operators(tuple(replaced), tuple(kept), masked)


def _site(trt: ModuleType, links: _Links, layer: ILayer) -> _Site | None:
    layer.__class__ = trt.ISoftMaxLayer
    softmax: ISoftMaxLayer = layer
    weights: ITensor = softmax.get_output(0)
    if softmax.axes != 1 << (len(weights.shape) - 1) or len(weights.shape) != 4:
        return None
    weighted = _reader(trt, links, weights)
    site = _scores(trt, links, softmax)
    if weighted is None or site is None or weighted.op0 != trt.MatrixOperation.NONE:
        return None
    if weighted.op1 != trt.MatrixOperation.NONE or weighted.get_output(0).name in links.outputs:
        return None
    return replace(site, weighted=weighted)


def _reader(trt: ModuleType, links: _Links, weights: ITensor) -> IMatrixMultiplyLayer:
    """The product that weights the values, if nothing else reads the weights."""
    tensor = weights
    while True:
        found = [(layer, i) for layer, i in links.readers[tensor.name] if layer.type != trt.LayerType.SHAPE]
        if len(found) != 1 or found[0][1] != 0:
            return None
        layer: ILayer = found[0][0]
        if layer.type == trt.LayerType.MATRIX_MULTIPLY:
            layer.__class__ = trt.IMatrixMultiplyLayer
            return layer
        if not _keeps_layout(trt, links, layer):
            return None
        tensor = layer.get_output(0)


def _scores(trt: ModuleType, links: _Links, softmax: ISoftMaxLayer) -> _Site | None:
    """The product behind a softmax, and the mask between them."""
    above: ITensor = softmax.get_input(0)
    limit: ITensor = None
    layer: ILayer = links.producer.get(above.name)
    while layer is not None and layer.type != trt.LayerType.MATRIX_MULTIPLY:
        if layer.type == trt.LayerType.ELEMENTWISE:
            layer.__class__ = trt.IElementWiseLayer
            masked: IElementWiseLayer = layer
            if masked.op != trt.ElementWiseOperation.MIN or limit is not None:
                return None
            limit = masked.get_input(1)
            if not _is_mask(trt, links, limit):
                return None
        elif not _keeps_layout(trt, links, layer):
            return None
        above = layer.get_input(0)
        layer = links.producer.get(above.name)
    if layer is None:
        return None
    layer.__class__ = trt.IMatrixMultiplyLayer
    scores: IMatrixMultiplyLayer = layer
    return _Site(softmax.name, scores, None, limit) if scores.op0 == trt.MatrixOperation.NONE else None


def _is_mask(trt: ModuleType, links: _Links, limit: ITensor) -> bool:
    """Whether scores are clamped to one of the limits of FP16, as exports write a boolean mask."""
    layer = _behind(trt, links, limit)
    if layer is None or layer.type != trt.LayerType.SELECT:
        return False
    limits = [_behind(trt, links, layer.get_input(index)) for index in (1, 2)]
    return [abs(value) for each in limits for value in _content(trt, each)] == [FP16_LIMIT, FP16_LIMIT]


def _behind(trt: ModuleType, links: _Links, tensor: ITensor) -> ILayer:
    """The layer that computes a tensor, before its type or shape is changed."""
    layer: ILayer = links.producer.get(tensor.name)
    while layer is not None and layer.type.name in _VIEWS:
        above: ITensor = layer.get_input(0)
        layer = links.producer.get(above.name)
    return layer


def _content(trt: ModuleType, layer: ILayer) -> list[float]:
    """The number of a constant of one number, or nothing."""
    if layer is None or layer.type != trt.LayerType.CONSTANT:
        return []
    layer.__class__ = trt.IConstantLayer
    constant: IConstantLayer = layer
    numbers = np.asarray(constant.weights, np.float64).ravel()
    return [float(numbers[0])] if numbers.size == 1 else []


def _keeps_layout(trt: ModuleType, links: _Links, layer: ILayer) -> bool:
    """Whether a layer changes at most the type: a cast, or a reshape to the same shape."""
    if layer.type != trt.LayerType.SHUFFLE:
        return bool(layer.type in (trt.LayerType.CAST, trt.LayerType.IDENTITY))
    before: ITensor = layer.get_input(0)
    after: ITensor = layer.get_output(0)
    layer.__class__ = trt.IShuffleLayer
    moved: IShuffleLayer = layer
    order = sorted(moved.first_transpose)
    if list(moved.first_transpose) != order or list(moved.second_transpose) != order:
        return False
    if tuple(before.shape) != tuple(after.shape):
        return False
    return tuple(before.shape).count(-1) <= 1 or _is_shape_of_input(trt, links, layer)


def _is_shape_of_input(trt: ModuleType, links: _Links, layer: ILayer) -> bool:
    """Whether a reshape takes the shape that a softmax had before it, as the parser writes one of unknown sizes."""
    shape = _behind(trt, links, layer.get_input(1)) if layer.num_inputs > 1 else None
    before: ITensor = layer.get_input(0)
    softmax: ILayer = links.producer.get(before.name)
    if shape is None or shape.type != trt.LayerType.SHAPE or softmax.type != trt.LayerType.SOFTMAX:
        return False
    return bool(shape.get_input(0).name == softmax.get_input(0).name)


def _unfused(site: _Site) -> str:
    """Why no fused kernel takes this attention, or nothing."""
    query: ITensor = site.scores.get_input(0)
    value: ITensor = site.weighted.get_input(1)
    if query.dtype.name not in FUSED_TYPES or value.dtype.name != query.dtype.name:
        return f"computed in {query.dtype.name}"
    widths = {int(query.shape[-1]), int(value.shape[-1])}
    if wrong := [width for width in widths if not 0 < width <= MAX_WIDTH or width % WIDTH_STEP]:
        return f"heads of width {wrong[0]}"
    return ""


def _replace(trt: ModuleType, network: INetworkDefinition, links: _Links, site: _Site) -> None:
    query: ITensor = site.scores.get_input(0)
    key: ITensor = site.scores.get_input(1)
    if site.scores.op1 == trt.MatrixOperation.NONE:
        turned: IShuffleLayer = network.add_shuffle(key)
        turned.first_transpose = trt.Permutation((0, 1, 3, 2))
        turned.name = f"{site.name}/keys"
        key = turned.get_output(0)
    attention: IAttention = network.add_attention(
        query, key, site.weighted.get_input(1), trt.AttentionNormalizationOp.SOFTMAX, False
    )
    attention.name = f"{site.name}/attention"
    attention.decomposable = True
    if site.limit is not None:  # attended keys: those whose limit is above zero
        lowest = network.add_unary(site.limit, trt.UnaryOperation.NEG).get_output(0)
        attended = network.add_elementwise(site.limit, lowest, trt.ElementWiseOperation.GREATER)
        attention.mask = attended.get_output(0)
    made: ITensor = attention.get_output(0)
    for layer, index in links.readers[site.weighted.get_output(0).name]:
        layer.set_input(index, made)
