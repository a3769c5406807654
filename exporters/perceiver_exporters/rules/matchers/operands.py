"""The operands of an attention, traced back to the values that their linear layers read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from perceiver_exporters.ir.sized import Shapes
from perceiver_exporters.rules.matchers.attention import operand
from perceiver_exporters.rules.matchers.layout import STEPS, Atom, Dimension, Layout, LayoutError
from perceiver_exporters.rules.matchers.linear import Linear, linear_of
from perceiver_exporters.rules.matchers.score_path import scaled

Step = tuple[ir.Node, int]
"""A node and the index of the output that is followed."""
CHANNEL, ROWS = "channel", "rows"
"""Names of the dimensions of a linear layer's result, and of those of the value it reads."""


@dataclass(frozen=True)
class Operand:
    """An operand of a product: a layout of `source`, or of a linear layer of it.

    Attributes:
        source: The value at which the layout starts.
        linear: The linear layer between `source` and the operand, if there is one.
        origin: Layout of the source: its own dimensions.
        channel: Channels of the linear layer's result.
        layout: Layout of the operand.
        scale: Factor on the way.
    """

    source: ir.Value
    linear: Linear | None
    origin: Layout
    channel: Atom | None
    layout: Layout
    scale: float

    def rows(self) -> list[Atom]:
        """Leaves of the source's dimensions in the order of storage, without the channels that a linear layer reads."""
        dims = self.origin.settled()
        return [atom for dim in (dims[:-1] if self.linear else dims) for atom in dim]

    @property
    def channels_in(self) -> Dimension:
        """The source's channels, which the linear layer reads."""
        return self.origin.settled()[-1]


def candidates(value: ir.Value, shapes: Shapes) -> list[Operand]:
    """What a value may be traced back to, the nearest first.

    Raises:
        LayoutError: Its layout can't be followed.
    """
    steps, at, scale = _back(value, scales=True)
    linear = linear_of(at)
    if linear is None:
        return [_plain(at, steps, scale, shapes)]
    before, _, _ = _back(linear.x, scales=False)
    made = []
    for count in range(len(before) + 1):
        used = before[len(before) - count :]
        source = operand(used[0][0], 0) if used else linear.x
        try:
            made.append(_projected(source, used, linear, steps, scale, shapes))
        except LayoutError:
            break
    if not made:
        raise LayoutError
    return made


def is_projected(value: ir.Value) -> bool:
    """Whether a value is a linear layer's result, moved and scaled."""
    return linear_of(_back(value, scales=True)[1]) is not None


def readers(value: ir.Value) -> set[ir.Node | None]:
    """The nodes that read a value, behind moves and scales; None for what is a graph output."""
    found: set[ir.Node | None] = {None} if value.is_graph_output() else set()
    for node, _ in value.uses():
        if not node.domain and (node.op_type in STEPS or scaled(node)):
            found |= {each for output in node.outputs for each in readers(output)}
        else:
            found.add(node)
    return found


def _plain(at: ir.Value, steps: Sequence[Step], scale: float, shapes: Shapes) -> Operand:
    origin = _origin(at, shapes)
    return Operand(at, None, origin, None, _through(origin, steps, shapes), scale)


def _projected(
    source: ir.Value, before: Sequence[Step], linear: Linear, steps: Sequence[Step], scale: float, shapes: Shapes
) -> Operand:
    origin = _origin(source, shapes)
    read = _through(origin, before, shapes).settled()
    if read[-1] != origin.settled()[-1]:
        raise LayoutError  # the layer's channels are others than the source's
    channel = Atom((CHANNEL,), linear.weight.shape[1])
    made = Layout([*read[:-1], [channel]])
    return Operand(source, linear, origin, channel, _through(made, steps, shapes), scale)


def _origin(value: ir.Value, shapes: Shapes) -> Layout:
    shape = shapes.get(str(value.name))
    if shape is None:
        raise LayoutError
    return Layout.of(ROWS, shape)


def _through(layout: Layout, steps: Sequence[Step], shapes: Shapes) -> Layout:
    for node, output in steps:
        if node.op_type in STEPS:
            layout = layout.after(node, output, shapes)
    return layout


def _back(value: ir.Value, *, scales: bool) -> tuple[list[Step], ir.Value, float]:
    """Nodes that only move values (or scale them) on the way back from a value, in order; where they start; the scale.

    A linear layer's input is not followed through a repetition, which would be computed for every copy.
    """
    steps: list[Step] = []
    factor = 1.0
    while (node := value.producer()) is not None and not node.domain:
        times = scaled(node) if scales else None
        if times is not None:
            factor *= times[1]
            before = times[0]
        elif node.op_type in STEPS and (scales or node.op_type != "Expand"):
            before = operand(node, 0)
        else:
            break
        if linear_of(value) is not None:
            break
        steps.insert(0, (node, node.outputs.index(value)))
        value = before
    return steps, value, factor
