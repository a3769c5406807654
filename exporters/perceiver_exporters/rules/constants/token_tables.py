"""Token and position embeddings under LayerNorm and a projection: looked up, not multiplied.

With E a token's embedding, P a position's, both centred and scaled by the normalisation's weights g, and b its bias:

    LN(e + p) W + c = (E W + P W) * rstd + (b W + c)

E W and P W are tables of vocabulary and positions by width, rstd one of positions by vocabulary. A softmax does not
see what the last term adds to all keys; to the values it is added after they are weighted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Draft, Exact, ints, replace
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import Projection, Site, array_of, operand, producer, sites
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict
from perceiver_runtime.tensors import Array

MOST_BYTES = 32 << 20
"""Of tables that a component may gain."""


@dataclass(frozen=True)
class Embedding:
    """Tokens (V, C) looked up by `ids` plus positions (L, C) cut to the text's length, normalised by `norm`."""

    ids: ir.Value
    tokens: Exact
    positions: Exact
    cut: ir.Node
    norm: ir.Node

    @property
    def epsilon(self) -> float:
        """Of the normalisation."""
        return self.norm.attributes.get_float("epsilon", 1e-5)

    def scaled(self) -> tuple[Exact, Exact]:
        """Both tables centred, and scaled by the normalisation's weights."""
        weight = array_of(self.norm.inputs[1])
        assert weight is not None  # _embedding saw it
        scale = weight.astype(np.float64)
        return _centre(self.tokens) * scale, _centre(self.positions) * scale

    def rstd(self) -> Exact:
        """One over the standard deviation of every token at every position, (L, V)."""
        e, p = _centre(self.tokens), _centre(self.positions)
        squares = (p**2).sum(1)[:, None] + (e**2).sum(1)[None] + 2 * p @ e.T
        return np.asarray(1 / np.sqrt(squares / e.shape[1] + self.epsilon))


def apply(sized: SizedGraph, _: Context) -> Verdict:
    """Replace the projections of embedded tokens."""
    found = [(site, embedding) for site in sites(sized.graph) if (embedding := _embedding(site)) is not None]
    if not found:
        return Declined("no keys and values are projected from embedded tokens alone")
    for site, embedding in found:
        if (size := _bytes(site, embedding)) > MOST_BYTES:
            return Declined(f"tables of {size / 1e6:.0f} MB; at most {MOST_BYTES / 1e6:.0f}")
    for site, embedding in found:
        _rewrite(sized.graph, site, embedding)
    return Applied(", ".join(site.name for site, _ in found))


def _embedding(site: Site) -> Embedding | None:
    norm = producer(site.x, "LayerNormalization")
    added = producer(norm.inputs[0], "Add") if norm else None
    gather = producer(added.inputs[0], "Gather") if added else None
    cut = producer(added.inputs[1], "Slice") if added else None
    if norm is None or gather is None or cut is None or not site.softmax or array_of(norm.inputs[1]) is None:
        return None
    tokens, positions = array_of(gather.inputs[0]), array_of(cut.inputs[0])
    if tokens is None or positions is None or {n for n, _ in site.x.uses()} != {site.key.product, site.value.product}:
        return None
    e, p = tokens.astype(np.float64), positions.astype(np.float64)
    return Embedding(operand(gather, 1), e, p, cut, norm) if gather.attributes.get_int("axis", 0) == 0 else None


def _bytes(site: Site, embedding: Embedding) -> int:
    vocabulary, length = len(embedding.tokens), len(embedding.positions)
    width = int(site.key.weight.shape[1] + site.value.weight.shape[1])
    return 4 * ((vocabulary + length) * width + vocabulary * length)


def _rewrite(graph: ir.Graph, site: Site, embedding: Embedding) -> None:
    write = Draft(graph, site.name, min((site.key.product, site.value.product), key=list(graph).index))
    places = np.arange(len(embedding.positions)) * len(embedding.tokens)
    place = write("Add", embedding.ids, _cut(write, embedding, places), name="place")
    looked_up = write("Gather", embedding.rstd().reshape(-1), place, axis=0, name="rstd")
    rstd = write("Unsqueeze", looked_up, ints(-1), name="rstd")
    for projection in (site.key, site.value):
        _look_up(write, embedding, projection, rstd)
    after = Draft(graph, site.name, site.weighted)
    bias = array_of(embedding.norm.inputs[2])
    assert bias is not None
    moved = bias.astype(np.float64) @ site.value.weight.astype(np.float64) + site.value.bias.astype(np.float64)
    attended = after("MatMul", site.weights, operand(site.weighted, 1), name="attended")
    spread = moved.reshape(site.heads, 1, -1)
    replace(site.weighted.outputs[0], after("Add", attended, spread, name="value_bias"))


def _look_up(write: Draft, embedding: Embedding, projection: Projection, rstd: ir.Value) -> None:
    """In the place of the projection with its bias."""
    tokens, positions = (table @ projection.weight.astype(np.float64) for table in embedding.scaled())
    scope = str(projection.product.name).rsplit("/", 1)[0]
    token = write("Gather", tokens, embedding.ids, axis=0, name=f"{scope}/tokens")
    both = write("Add", token, _cut(write, embedding, positions), name=f"{scope}/with_position")
    product = projection.product.outputs[0]
    biased = [node for node, _ in product.uses() if node.op_type == "Add"]
    replace(biased[0].outputs[0] if biased else product, write("Mul", both, rstd, name=f"{scope}/looked_up"))


def _cut(write: Draft, embedding: Embedding, table: Array) -> ir.Value:
    """The first rows of a table over positions, as many as the text has."""
    bounds = [operand(embedding.cut, i) for i in range(1, len(embedding.cut.inputs))]
    return write("Slice", table, *bounds, name="positions")


def _centre(table: Exact) -> Exact:
    centred: Exact = table - table.mean(1, keepdims=True)
    return centred


TOKEN_TABLES = RewriteRule(
    "token-tables",
    "keys and values of embedded tokens from three tables",
    apply,
    backends=("onnxruntime",),
)
