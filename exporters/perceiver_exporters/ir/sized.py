"""A graph with the sizes of its inputs: concrete shapes of all values, inferred once per version of the graph."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript import optimizer

from perceiver_exporters.ir.quiet import quiet
from perceiver_runtime.tensors import Profile, TensorSpec

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Static shapes by name of the value."""
LARGEST_SHAPE = 16
"""Elements of the largest constants that `distinct_shapes` folds: shapes, and no value whose own shape is asked for."""


class SizedGraph:
    """A model, the specs of its inputs, and the profile that gives their sizes.

    Shapes are inferred on first use and kept until `invalidate`, which whoever changes the model in place calls.
    """

    def __init__(self, model: ir.Model, inputs: tuple[TensorSpec, ...], profile: Profile) -> None:
        self.model, self.inputs, self.profile = model, inputs, profile
        self._sized: dict[tuple[Shape, ...], ir.Graph] = {}

    @property
    def name(self) -> str:
        """Name of the component."""
        return str(self.model.graph.name)

    @property
    def graph(self) -> ir.Graph:
        """The graph itself, with symbolic dimensions."""
        return self.model.graph

    @property
    def opt(self) -> ir.Graph:
        """A copy at the profile's `opt` sizes, to be read only: every shape is a number; tensors are shared."""
        return self._at(tuple(self.profile.shapes(spec)[1] for spec in self.inputs))

    @property
    def largest(self) -> ir.Graph:
        """The same at the profile's `max` sizes."""
        return self._at(tuple(self.profile.shapes(spec)[2] for spec in self.inputs))

    def invalidate(self) -> None:
        """Forget the shapes: the model has changed."""
        self._sized.clear()

    def _at(self, shapes: tuple[Shape, ...]) -> ir.Graph:
        if shapes not in self._sized:
            by_name = {spec.name: shape for spec, shape in zip(self.inputs, shapes, strict=True)}
            self._sized[shapes] = infer_shapes(self.model, by_name).graph
        return self._sized[shapes]


def infer_shapes(model: ir.Model, inputs: Shapes, **limits: int) -> ir.Model:
    """A copy of the model that shares its tensors, with the shapes that follow from those of its inputs.

    Args:
        model: Model with symbolic dimensions.
        inputs: Shapes of its inputs.
        limits: Sizes from which constants are not folded (`fold_constants`); folded nodes are not in the copy.
    """
    sized = model.clone()
    for node in sized.graph:
        for value in node.outputs:
            value.shape = None
    for value in sized.graph.inputs:
        value.shape = ir.Shape(inputs[str(value.name)])
    with quiet():
        # sizes that the graph computes from those of its inputs
        optimizer.fold_constants(sized, onnx_shape_inference=True, **limits)
    common.ShapeInferencePass()(sized)
    return sized


def static_shapes(graph: ir.Graph) -> dict[str, Shape]:
    """The shapes that are known, by name of the value: inputs, constants and results."""
    values = [*graph.inputs, *(v for node in graph for v in (*node.inputs, *node.outputs) if v is not None)]
    return {str(v.name): tuple(v.shape.numpy()) for v in values if v.shape is not None and v.shape.is_static()}


def distinct_shapes(sized: SizedGraph, place: int = 0) -> dict[str, Shape]:
    """Shapes of all nodes at sizes near the profile's `opt`: above 1 and unlike each other, where it allows that.

    Args:
        sized: Graph and profile.
        place: Which of these sizes: every symbol has another one at the next place, if its range has several.
    """
    taken: set[int] = set()
    sizes = {}
    for symbol, bounds in sized.profile.dimensions.items():
        around = sorted(range(bounds.min, bounds.max + 1), key=lambda n: (n < 2, abs(n - bounds.opt)))
        free = [n for n in around if n not in taken] or around
        sizes[symbol] = free[min(place, len(free) - 1)]
        taken.add(sizes[symbol])
    given = {spec.name: spec.resolve(sizes) for spec in sized.inputs}
    return static_shapes(infer_shapes(sized.model, given, output_size_limit=LARGEST_SHAPE).graph)
