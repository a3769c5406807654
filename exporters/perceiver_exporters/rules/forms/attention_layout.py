"""Bring attention to the one form that the other rules match.

    scores   = MatMul(query, Transpose(Reshape(x Wk + bk)))        (B, heads, N, M)
    weighted = MatMul(weights, Transpose(Reshape(x Wv + bv)))      (B, heads, N, F)

from B * heads in one axis, several batch axes, tokens before the batch (nn.MultiheadAttention), packed projections,
heads that share keys (which become rows of one head: nothing is repeated), and outputs merged and projected in any of
these. Channels are arranged in the weights, at export.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from perceiver_exporters.ir.builder import NodeBuilder, replace
from perceiver_exporters.ir.sized import Shapes, SizedGraph, distinct_shapes
from perceiver_exporters.precision.integers.layers import layer_of
from perceiver_exporters.rules.forms.arrange import Arranger, columns, same
from perceiver_exporters.rules.matchers.attention import (
    KEY_PERM,
    VALUE_PERM,
    operand,
    projected_keys,
    projected_values,
)
from perceiver_exporters.rules.matchers.layout import Atom, Dimension, LayoutError, settled
from perceiver_exporters.rules.matchers.linear import PACKED, Linear
from perceiver_exporters.rules.matchers.operands import Operand, is_projected, readers
from perceiver_exporters.rules.matchers.score_path import ScorePath, score_paths
from perceiver_exporters.rules.matchers.written_attention import (
    BATCH,
    GROUP,
    HEAD,
    Part,
    written_attention,
)
from perceiver_exporters.rules.rule import Applied, Context, Declined, RewriteRule, Verdict
from perceiver_runtime.tensors import Array


def apply(sized: SizedGraph, _: Context) -> Verdict:
    """Rewrite all attention of another form whose operands are layouts of projections."""
    paths = [path for path in score_paths(sized.graph) if not _is_plain(path)]
    if not paths:
        return Declined("no attention of another form")
    both = [distinct_shapes(sized, place) for place in range(2)]
    done: list[str] = []
    failed: list[str] = []
    for path in reversed(paths):  # whatever reads an attention is rewritten before it, by the shapes of the old graph
        (done if _rewrite(sized.graph, path, *both) else failed).append(path.name)
    common.RemoveUnusedNodesPass()(sized.model)
    left = f"{', '.join(reversed(failed))}: heads are no channels of projections, or not to be told apart"
    if not done:
        return Declined(left)
    return Applied(", ".join(reversed(done)) + (f"; not {left}" if failed else ""))


def _rewrite(graph: ir.Graph, path: ScorePath, here: Shapes, there: Shapes) -> bool:
    """Rewrite one attention; whether its layout could be followed."""
    try:
        _Rewrite(graph, path, here, there).run()
    except LayoutError:
        return False
    return True


def _is_plain(path: ScorePath) -> bool:
    """Whether the matchers of other rules read its keys and values, or can't in any layout: they are no projections."""
    if not is_projected(operand(path.scores, 1)) or not is_projected(operand(path.weighted, 1)):
        return True
    shape = path.scores.outputs[0].shape
    matched = projected_keys(path.scores) is not None and projected_values(path.weighted) is not None
    return shape is not None and len(shape) == 4 and matched


class _Rewrite:
    """One attention, written anew before its own nodes."""

    def __init__(self, graph: ir.Graph, path: ScorePath, here: Shapes, there: Shapes) -> None:
        found, other = written_attention(path, here), written_attention(path, there)
        if found.listing() != other.listing():
            raise LayoutError
        for one in (found.query, found.key, found.value):
            if one.linear is not None and not readers(one.linear.made) <= {path.scores, path.weighted}:
                raise LayoutError  # it would be computed for this attention and for its other readers
        pairs = zip(found.atoms(), other.atoms(), strict=True)
        self._dynamic = {id(atom) for atom, again in pairs if atom.size != again.size}
        self._graph, self._path, self._found = graph, path, found
        self._inputs: dict[tuple[object, ...], ir.Value] = {}

    def run(self) -> None:
        """Raise LayoutError, and leave the graph as it is but for unread nodes, where a shape can't be written."""
        path, found = self._path, self._found
        build = NodeBuilder(self._graph, path.name, path.scores)
        query, key = self._query(build), self._key(build)
        scores = build("MatMul", query, key, name="scores")
        after = build.at(path.weighted)
        value = self._value(after)
        old, new = found.scores, [*self._rows(), found.scores[-1]]
        if path.nodes:  # masks keep the form they are written in
            moved = self._arranger(build)(scores, new, old, "scores")
            weights = self._arranger(after)(operand(path.weighted, 0), old, new, "weights")
        else:
            moved, weights = None, after("Softmax", scores, axis=-1, name="weights")
        attended = after("MatMul", weights, value, name="attended")
        ends = self._ending(after, attended)
        if moved is not None:
            replace(path.scores.outputs[0], moved)
        replace(*ends)

    def _arranger(self, build: NodeBuilder) -> Arranger:
        return Arranger(build, self._dynamic)

    def _rows(self) -> list[Dimension]:
        """Batch, heads, and rows with those of all groups."""
        found = self._found
        batch, heads, groups = (_made(found.of(kind)) for kind in (BATCH, HEAD, GROUP))
        return [batch, heads, [*groups, *found.rows]]

    def _query(self, build: NodeBuilder) -> ir.Value:
        """Scaled queries (B or 1, heads, groups * N, E)."""
        found, one = self._found, self._found.query
        spread = [part.query for part in found.of(BATCH)]
        batch = [atom for atom in spread if atom is not None]
        if batch and len(batch) < len(spread):
            raise LayoutError
        heads, groups = ([part.query for part in found.of(kind) if part.query] for kind in (HEAD, GROUP))
        *_, rows, width = one.layout.settled()
        rows = [atom for atom in rows if all(atom is not group for group in groups)]
        whole = [batch, heads, [*groups, *rows], width]
        if one.linear is None:
            value = self._arranger(build)(one.source, one.origin.dims, whole, "queries")
        else:
            made = self._product(build, one, batch, rows, [*heads, *groups, *width], "query")
            parts = [batch, rows, heads, groups, width] if groups else [batch, rows, heads, width]
            value = self._moved(build, made, parts, (0, 2, 3, 1, 4) if groups else VALUE_PERM, "queries")
            if groups:
                value = self._arranger(build)(value, [batch, heads, groups, rows, width], whole, "queries")
        return build("Mul", value, _number(one.scale * found.key.scale), name="scaled")

    def _key(self, build: NodeBuilder) -> ir.Value:
        *_, width, rows = self._found.key.layout.settled()
        parts = [(part.kind, part.key) for part in self._found.parts]
        return self._keyed(build, self._found.key, parts, rows, width, KEY_PERM, "key")

    def _value(self, build: NodeBuilder) -> ir.Value:
        *_, rows, width = self._found.value.layout.settled()
        parts = [(part.kind, part.value) for part in self._found.parts]
        if self._found.value.scale != 1:
            raise LayoutError
        return self._keyed(build, self._found.value, parts, rows, width, VALUE_PERM, "value")

    def _keyed(
        self,
        build: NodeBuilder,
        one: Operand,
        parts: Sequence[tuple[str, Atom | None]],
        rows: Dimension,
        width: Dimension,
        perm: tuple[int, ...],
        name: str,
    ) -> ir.Value:
        """Keys (B, heads, E, M) or values (B, heads, M, F)."""
        batch, heads = ([atom for kind, atom in parts if kind == wanted and atom] for wanted in (BATCH, HEAD))
        dims = [batch, rows, heads, width]
        if one.linear is None:
            return self._arranger(build)(one.source, one.origin.dims, [dims[i] for i in perm], f"{name}s")
        made = self._product(build, one, batch, rows, [*heads, *width], name)
        return self._moved(build, made, dims, perm, f"{name}s")

    def _moved(
        self, build: NodeBuilder, made: ir.Value, dims: Sequence[Dimension], perm: tuple[int, ...], name: str
    ) -> ir.Value:
        """A projection (B, rows, channels), divided into `dims` and transposed."""
        batch, rows, *channels = dims
        before = [batch, rows, [atom for dim in channels for atom in dim]]
        reshaped = self._arranger(build).reshaped(made, before, dims, name)
        return build("Transpose", reshaped, perm=list(perm), name=name)

    def _product(
        self, build: NodeBuilder, one: Operand, batch: Dimension, rows: Dimension, order: Sequence[Atom], name: str
    ) -> ir.Value:
        """The linear layer of (B, rows, C), with its channels in this order."""
        assert one.linear is not None
        assert one.channel is not None
        x = self._input(build, one, [batch, rows, one.channels_in])
        chosen = one.channel.indices(order)
        linear = one.linear
        bias = None if linear.bias is None else linear.bias[chosen]
        part = Linear(x, linear.product, linear.weight[:, chosen], bias, linear.made)
        made, product = self._linear(build, part, name)
        if len(chosen) != linear.weight.shape[1]:
            product.metadata_props[PACKED] = str(linear.product.name)
        return made

    def _input(self, build: NodeBuilder, one: Operand, dims: Sequence[Dimension]) -> ir.Value:
        """What a linear layer reads (B, rows, C); the same value for keys and values of the same inputs."""
        names = tuple(tuple(atom.key for atom in dim) for dim in (*settled(one.origin.dims), *dims))
        if (one.source, names) not in self._inputs:
            self._inputs[one.source, names] = self._arranger(build)(one.source, one.origin.dims, dims, "inputs")
        return self._inputs[one.source, names]

    def _linear(self, build: NodeBuilder, linear: Linear, name: str) -> tuple[ir.Value, ir.Node]:
        """A linear layer, named after the module whose weight it has: its result and its MatMul."""
        own = build.named(layer_of(linear.product))
        product = own("MatMul", linear.x, linear.weight, name=name)
        node = product.producer()
        assert node is not None
        return product if linear.bias is None else own("Add", product, linear.bias, name=f"{name}_bias"), node

    def _ending(self, build: NodeBuilder, attended: ir.Value) -> tuple[ir.Value, ir.Value]:
        """The old value to be replaced, and the new one."""
        found, ending, path = self._found, self._found.ending, self._path
        batch, heads, rows = self._rows()
        arrange = self._arranger(build)
        old, new = [*found.scores[:-1], found.width], [batch, heads, rows, found.width]
        first = path.weighted.outputs[0]
        unmoved = len(old) == len(new) and all(map(same, old, new))
        guarded = ending.guard.outputs[0] if ending.guard is not None else first
        if (guarded is not first and not unmoved) or ending.value is guarded:
            return first, arrange(attended, new, old, "attended")
        if ending.guard is not None:
            build = build.at(ending.guard)
            arrange = self._arranger(build)
            attended = build("Where", operand(ending.guard, 0), attended, operand(ending.guard, 2), name="attended")
        if ending.linear is None:
            return ending.value, arrange(attended, new, ending.layout, "merged")
        groups = _made(found.of(GROUP))
        channels = [*heads, *groups, *found.width]
        parts = [batch, heads, groups, found.rows, found.width] if groups else new
        divided = arrange.reshaped(attended, new, parts, "attended") if groups else attended
        perm = (0, 3, 1, 2, 4) if groups else VALUE_PERM
        moved = build("Transpose", divided, perm=list(perm), name="merged")
        merged = arrange.reshaped(moved, [parts[i] for i in perm], [batch, found.rows, channels], "merged")
        weight = ending.linear.weight[columns(ending.read[-1], channels)]
        linear = Linear(merged, ending.linear.product, weight, ending.linear.bias, ending.linear.made)
        made, _ = self._linear(build, linear, "output")
        answer = [atom for dim in ending.layout for atom in dim if atom.key[0] == "answer"]
        return ending.value, arrange(made, [batch, found.rows, answer], ending.layout, "output")


def _made(parts: Sequence[Part]) -> Dimension:
    return [part.made for part in parts]


def _number(value: float) -> Array:
    return np.array(value)


ATTENTION_LAYOUT = RewriteRule(
    "attention-layout", "attention in other layouts, or of packed projections, in the form that rules match", apply
)
