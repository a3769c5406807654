"""Fused attention in TensorRT's lists of layers: how many kernels compute an attention whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

_LINE = re.compile(r"^Name: (?P<name>.*?), LayerType: .*?, TacticName: (?P<tactic>[^,]*),", re.MULTILINE)
_COMPILED = "_gemm_mha"
"""Start of the names of layers that are fused attention of TensorRT's compiler; others are named after ONNX nodes."""
_KERNEL = re.compile(r"fmha|mha_v\d|flash_attention", re.IGNORECASE)
"""Fused attention in the names of kernels."""


def fused_attention(layers: Iterable[tuple[str, str]]) -> int | None:
    """Number of layers of fused attention among (name, kernel); None if there is no list."""
    found = dict(layers)  # a build for several GPUs lists each layer several times
    return (
        sum(n.startswith(_COMPILED) or bool(_KERNEL.search(kernel)) for n, kernel in found.items()) if found else None
    )


def layers_in(log: str) -> Iterator[tuple[str, str]]:
    """Name and kernel of each layer in the list that a build logs at detailed verbosity."""
    return ((match["name"], match["tactic"]) for match in _LINE.finditer(log))


def layers_of_json(text: str) -> Iterator[tuple[str, str]]:
    """Name and kernel of each layer in the JSON of an engine's inspector at detailed verbosity."""
    for layer in json.loads(text).get("Layers", []):
        if isinstance(layer, dict):
            yield str(layer.get("Name", "")), str(layer.get("TacticName", ""))
