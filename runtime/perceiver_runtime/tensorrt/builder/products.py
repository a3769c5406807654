"""Proof of precision without a GPU: operand types of a network's matrix products, which a build must keep."""

from __future__ import annotations

from collections import Counter
from types import ModuleType
from typing import Any

from perceiver_runtime.tensorrt.api import ILayer, INetworkDefinition, ITensor

_LAYOUT = ("SHUFFLE", "SQUEEZE", "UNSQUEEZE", "CAST", "IDENTITY")  # by name: not every version has all of them
_TYPE_NAMES = {"FLOAT": "fp32", "HALF": "fp16", "BF16": "bf16", "INT8": "int8", "FP8": "fp8"}


def matrix_products(trt: ModuleType, network: INetworkDefinition) -> dict[str, int]:
    """Number of matrix products and convolutions by operand type; int8 behind a dequantisation.

    A strongly typed build keeps these types, so that they are what the engine computes in.
    """
    found: Counter[str] = Counter()
    producers = {}
    for index in range(network.num_layers):
        layer: ILayer = network.get_layer(index)
        for output in range(layer.num_outputs):
            producers[layer.get_output(output).name] = layer
        if layer.type in (trt.LayerType.MATRIX_MULTIPLY, trt.LayerType.CONVOLUTION):
            found[_operand_type(trt, layer, producers)] += 1
    return dict(sorted(found.items()))


def _operand_type(trt: ModuleType, layer: ILayer, producers: dict[str, Any]) -> str:
    """Type of the first operand, behind the dequantisation and layout changes that TensorRT fuses with a product."""
    operand: ITensor = layer.get_input(0)
    source: ILayer = producers.get(operand.name)
    while source is not None and source.type.name in _LAYOUT:
        above: ITensor = source.get_input(0)
        source = producers.get(above.name)
    if source is not None and source.type == trt.LayerType.DEQUANTIZE:
        operand = source.get_input(0)
    name: str = operand.dtype.name
    return _TYPE_NAMES.get(name, name.lower())
