"""Where a program attends: learned latents to inputs, latents to themselves, queries to latents."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, fx

from perceiver_exporters.cutting.program import Program

_aten: Any = torch.ops.aten
_SOFTMAX = (_aten.softmax.int, _aten._softmax.default, _aten._safe_softmax.default)
_SDPA = (_aten.scaled_dot_product_attention.default,)
_PRODUCTS = (_aten.matmul.default, _aten.bmm.default, _aten.einsum.default, _aten.baddbmm.default)


class Kind(Enum):
    """What attends to what."""

    TOKENS = "tokens of the inputs to each other"
    READ = "latents to the inputs"
    LATENTS = "latents to each other"
    ASK = "queries to the latents"


@dataclass(frozen=True)
class Site:
    """One attention: the step of its softmax, its kind, and how many queries and keys it has."""

    step: int
    kind: Kind
    queries: str
    keys: str


@dataclass(frozen=True)
class _Origin:
    """Where a value comes from: straight from the inputs, through latents, or neither (learned)."""

    inputs: bool = False
    latents: bool = False

    def __or__(self, other: _Origin) -> _Origin:
        return _Origin(self.inputs or other.inputs, self.latents or other.latents)


_LATENTS = _Origin(latents=True)


def find_sites(program: Program) -> list[Site]:
    """All attention of a program, in order."""
    origins: dict[fx.Node, _Origin] = dict.fromkeys(program.placeholders, _Origin(inputs=True))
    sites: list[Site] = []
    weights: dict[fx.Node, _Origin] = {}
    """Attention weights: what their product with the values is, whatever the values are."""
    for index, node in enumerate(program.steps):
        read = [origins[n] for n in node.all_input_nodes if n in origins]
        origin = _joined(read)
        scores = _operands(node, program)
        if scores is not None:
            query, key = (origins.get(each, _Origin()) for each in scores)
            kind = _kind(query, key, *scores)
            sites.append(Site(index, kind, *map(_tokens, scores)))
            attended = _LATENTS if kind is not Kind.TOKENS else origin
            if node.target in _SDPA:
                origin = attended
            else:
                weights[node] = attended
        elif (passed := next((weights[n] for n in node.all_input_nodes if n in weights), None)) is not None:
            if node.target in _PRODUCTS:
                origin = passed
            else:
                weights[node] = passed
        origins[node] = _LATENTS if _updates_latents(node, origins) else origin
    return sites


def _updates_latents(node: fx.Node, origins: dict[fx.Node, _Origin]) -> bool:
    """Whether a step adds something to the latents: a residual, even if they started as tokens of the inputs."""
    if node.target is not _aten.add.Tensor:
        return False
    shape = node.meta["val"].shape
    return any(origins.get(n) == _LATENTS and n.meta["val"].shape == shape for n in node.all_input_nodes)


def _joined(origins: list[_Origin]) -> _Origin:
    joined = _Origin()
    for each in origins:
        joined = joined | each
    return joined


def _kind(query: _Origin, key: _Origin, q: fx.Node, k: fx.Node) -> Kind:
    reads_latents = key.latents and not key.inputs
    if reads_latents:
        return Kind.LATENTS if query.latents and not query.inputs else Kind.ASK
    if query.latents or not query.inputs or _tokens(q) != _tokens(k):
        return Kind.READ
    return Kind.TOKENS


def _tokens(node: fx.Node) -> str:
    """Size of the token axis of a query, or of a key that is not transposed."""
    shape = node.meta["val"].shape
    return str(shape[-2]) if len(shape) > 1 else ""


def _operands(node: fx.Node, program: Program) -> tuple[fx.Node, fx.Node] | None:
    """Queries and keys of an attention, both (..., tokens, width), if the step is one."""
    if node.target in _SDPA:
        return node.args[0], node.args[1]  # type: ignore[return-value]
    if node.target not in _SOFTMAX:
        return None
    scores = _producer(node)
    if scores is None:
        return None
    if scores.target is _aten.einsum.default:
        operands = scores.args[1]
    elif scores.target is _aten.baddbmm.default:
        operands = scores.args[1:3]
    else:
        operands = scores.args[:2]
    assert isinstance(operands, tuple | list)  # by the operator's schema
    query, key = operands
    return (query, _untransposed(key)) if isinstance(query, fx.Node) and isinstance(key, fx.Node) else None


def _producer(node: fx.Node) -> fx.Node | None:
    """The product whose result a softmax takes, through masks, scales and shapes."""
    while True:
        candidates = [n for n in node.all_input_nodes if isinstance(n.meta.get("val"), Tensor)]
        if not candidates:
            return None
        node = max(candidates, key=lambda n: (n.meta["val"].is_floating_point(), n.meta["val"].dim()))
        if node.target in _PRODUCTS:
            return node
        if node.op != "call_function":
            return None


def _untransposed(key: fx.Node) -> fx.Node:
    if key.target in (_aten.transpose.int, _aten.permute.default, _aten.t.default) and isinstance(key.args[0], fx.Node):
        return key.args[0]
    return key
