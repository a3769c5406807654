"""Look up projected keys and values of normalised token and position embeddings instead of computing them.

With E a token's embedding, P a position's, both centred and scaled by the LayerNorm's weights g, and b its bias:

    LN(e + p) W + c = (E W + P W) * rstd + (b W + c)

E W and P W are tables (vocabulary, width) and (positions, width), rstd is a table (positions, vocabulary). softmax is
invariant to the last term of the keys; that of the values is added after the weighting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from perceiver_exporters.ir.builder import Float64Array, NodeBuilder, ints, replace
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.rules.matchers.attention import (
    AttentionSite,
    Projection,
    array_of,
    attention_sites,
    operand,
    producer,
)
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict
from perceiver_runtime.tensors import Array

MAX_TABLE_BYTES = 32 << 20
"""Upper limit of the tables that are added to a component."""


@dataclass(frozen=True)
class Embedding:
    """Tokens (V, C) looked up by `ids` plus positions (L, C) sliced to the text's length, normalised by `norm`."""

    ids: ir.Value
    tokens: Float64Array
    positions: Float64Array
    cut: ir.Node
    norm: ir.Node

    @property
    def epsilon(self) -> float:
        """Epsilon of the normalisation."""
        return self.norm.attributes.get_float("epsilon", 1e-5)

    def scaled(self) -> tuple[Float64Array, Float64Array]:
        """Both tables, centred and scaled by the normalisation's weights."""
        weight = array_of(self.norm.inputs[1])
        assert weight is not None  # _embedding saw it
        scale = weight.astype(np.float64)
        return _centre(self.tokens) * scale, _centre(self.positions) * scale

    def rstd(self) -> Float64Array:
        """Reciprocal standard deviation of every token at every position, (L, V)."""
        e, p = _centre(self.tokens), _centre(self.positions)
        squares = (p**2).sum(1)[:, None] + (e**2).sum(1)[None] + 2 * p @ e.T
        return np.asarray(1 / np.sqrt(squares / e.shape[1] + self.epsilon))


def apply(sized: SizedGraph, _: Context) -> Verdict:
    """Replace projections of embedded tokens by lookups."""
    found = [(site, embedding) for site in attention_sites(sized.graph) if (embedding := _embedding(site)) is not None]
    if not found:
        return Declined("no keys and values are projected from embedded tokens alone")
    for site, embedding in found:
        if (size := _bytes(site, embedding)) > MAX_TABLE_BYTES:
            return Declined(f"tables of {size / 1e6:.0f} MB, limit {MAX_TABLE_BYTES / 1e6:.0f} MB")
    for site, embedding in found:
        _rewrite(sized.graph, site, embedding)
    return Applied(", ".join(site.name for site, _ in found))


def _embedding(site: AttentionSite) -> Embedding | None:
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


def _bytes(site: AttentionSite, embedding: Embedding) -> int:
    vocabulary, length = len(embedding.tokens), len(embedding.positions)
    width = int(site.key.weight.shape[1] + site.value.weight.shape[1])
    return 4 * ((vocabulary + length) * width + vocabulary * length)


def _rewrite(graph: ir.Graph, site: AttentionSite, embedding: Embedding) -> None:
    build = NodeBuilder(graph, site.name, min((site.key.product, site.value.product), key=list(graph).index))
    places = np.arange(len(embedding.positions)) * len(embedding.tokens)
    place = build("Add", embedding.ids, _cut(build, embedding, places), name="place")
    looked_up = build("Gather", embedding.rstd().reshape(-1), place, axis=0, name="rstd")
    rstd = build("Unsqueeze", looked_up, ints(-1), name="rstd")
    for projection in (site.key, site.value):
        _look_up(build, embedding, projection, rstd)
    after = NodeBuilder(graph, site.name, site.weighted)
    bias = array_of(embedding.norm.inputs[2])
    assert bias is not None
    moved = bias.astype(np.float64) @ site.value.weight.astype(np.float64) + site.value.bias.astype(np.float64)
    attended = after("MatMul", site.weights, operand(site.weighted, 1), name="attended")
    spread = moved.reshape(site.heads, 1, -1)
    replace(site.weighted.outputs[0], after("Add", attended, spread, name="value_bias"))


def _look_up(build: NodeBuilder, embedding: Embedding, projection: Projection, rstd: ir.Value) -> None:
    """Replace one projection and its bias by a lookup."""
    tokens, positions = (table @ projection.weight.astype(np.float64) for table in embedding.scaled())
    scope = str(projection.product.name).rsplit("/", 1)[0]
    token = build("Gather", tokens, embedding.ids, axis=0, name=f"{scope}/tokens")
    both = build("Add", token, _cut(build, embedding, positions), name=f"{scope}/with_position")
    product = projection.product.outputs[0]
    biased = [node for node, _ in product.uses() if node.op_type == "Add"]
    replace(biased[0].outputs[0] if biased else product, build("Mul", both, rstd, name=f"{scope}/looked_up"))


def _cut(build: NodeBuilder, embedding: Embedding, table: Array) -> ir.Value:
    """The table's rows for the positions of the text."""
    bounds = [operand(embedding.cut, i) for i in range(1, len(embedding.cut.inputs))]
    return build("Slice", table, *bounds, name="positions")


def _centre(table: Float64Array) -> Float64Array:
    centred: Float64Array = table - table.mean(1, keepdims=True)
    return centred


TOKEN_TABLES = RewriteRule(
    "token-tables",
    "keys and values of embedded tokens, looked up in three tables",
    apply,
    backends=("onnxruntime",),
)
