"""Static INT8: weights per channel, activations per tensor over calibrated ranges, in Q/DQ form.

Products with a constant weight are quantised. Normalisation, softmax and the residual stream stay in floating point;
where a product reads the residual stream, its operand alone is rounded. A tensor that several products read has one
quantizer.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from perceiver_exporters.component import Cut
from perceiver_exporters.ir.graph import constant_of, move_name
from perceiver_exporters.precision.calibration.calibrate import calibrate
from perceiver_exporters.precision.calibration.methods import Bounds
from perceiver_exporters.precision.calibration.statistics import Statistics
from perceiver_exporters.precision.emulation import Product, calibrate_sites, emulate_products
from perceiver_exporters.precision.integers.adopt import adopt, scale_of
from perceiver_exporters.precision.integers.attention import (
    LEFT,
    RIGHT,
    attention_layer,
    attentions,
    left_range,
    right_range,
)
from perceiver_exporters.precision.integers.layers import is_dequantized, layer_of, trained, weighted
from perceiver_exporters.precision.integers.plan import ComponentPlan, Plan
from perceiver_exporters.precision.integers.qdq import (
    Floats,
    Writer,
    fold_factors,
    output_axis,
    reads_dynamic_range,
    reads_integers,
    weight_shape,
)
from perceiver_exporters.precision.integers.rounding import round_activation, round_weight
from perceiver_exporters.precision.integers.scheme import Scheme
from perceiver_exporters.precision.integers.smooth import divisors, smooth
from perceiver_exporters.precision.options import QuantizationOptions
from perceiver_exporters.precision.precision import Measured, Precision, Request
from perceiver_exporters.reference import Feeds, Reference, Scope
from perceiver_runtime.errors import CheckError
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.progress import report

MIN_GAIN = 0.01
"""Share of a component's error that scale migration must remove; less may be chance."""
MAX_BIAS = 2**30
"""Largest magnitude of an INT32 bias, which leaves room for the sum that is added to it."""


@dataclass(frozen=True)
class StaticIntegers(Precision):
    """INT8 with ranges from calibration data."""

    calibrated: bool = True
    planned: bool = True

    def calibrate(self, measured: Measured, options: QuantizationOptions) -> Mapping[str, Statistics]:
        """Statistics of the activations in FP64, equal on every processor. Raises what `calibrate` raises."""
        return calibrate(measured.cut, measured.graphs, measured.samples, options.cache, options.attention)

    def plan(
        self, measured: Measured, statistics: Mapping[str, Statistics], scheme: Scheme, options: QuantizationOptions
    ) -> Plan:
        """Ranges by the options' method, and scale migration where it lowers the measured error."""
        plan = {}
        for name, graph in measured.graphs.items():
            layers = frozenset(layer_of(node) for node in weighted(graph.graph))
            chosen = (
                frozenset(each.layer for each in attentions(graph.graph)) if options.attention else frozenset[str]()
            )
            plain = ComponentPlan(statistics[name], options.method(name), layers=layers, attention=chosen)
            smoothed = options.smooth and measured.golden
            plan[name] = self._smoothed(measured, name, plain, scheme) if smoothed else plain
        return plan

    def rewrite(self, model: ir.Model, request: Request) -> ir.Model:
        """Quantise an FP32 graph as the request's plan says; returns a new one. Raises CheckError without a plan."""
        if not trained(model.graph):
            return model
        if request.plan is None:
            raise CheckError(f"component {request.component}: expected a quantization plan, got none")
        return quantize(model, request.plan, request.scheme)

    def emulate(self, cut: Cut, calibration: Iterable[Feeds], scheme: Scheme, plan: Plan | None = None) -> Scope:
        """Activations and weights of every product with a parameter rounded to the scheme's integers."""
        decided = plan if plan is not None else calibrate_sites(cut, calibration)
        attention = any(each.attention for each in decided.values())
        compute = {name: functools.partial(_compute, each, scheme) for name, each in decided.items()}
        return emulate_products(cut, lambda component: compute[component], attention)

    def prove(self, node: ir.Node) -> bool:
        """Whether both operands are dequantised 8-bit integers, with ranges that are constants."""
        return reads_integers(node) and not reads_dynamic_range(node)

    def _smoothed(self, measured: Measured, name: str, plain: ComponentPlan, scheme: Scheme) -> ComponentPlan:
        """The plan with scale migration if that is nearer to the golden outputs, or as it is."""
        scales = divisors(measured.graphs[name], plain.statistics)
        if not scales:
            return plain
        candidate = dataclasses.replace(plain, divisors=scales)
        before, after = (self._error(measured, name, each, scheme) for each in (plain, candidate))
        better = after < before * (1 - MIN_GAIN)
        verdict = "smoothed" if better else "not smoothed"
        report(f"{name}: {verdict}: error {after:.2e} with scale migration, {before:.2e} without")
        return candidate if better else plain

    def _error(self, measured: Measured, component: str, plan: ComponentPlan, scheme: Scheme) -> float:
        """Largest relative L2 distance of a component's outputs from golden ones, as the emulation computes them."""
        reference = Reference(measured.cut, scope=self.emulate(measured.cut, (), scheme, {component: plan}))
        return max(
            relative_l2(exact, got[name])
            for call in (sample.components[component] for sample in measured.golden)
            for got in [reference.apply(component, call.inputs)]
            for name, exact in call.outputs.items()
        )


def _compute(plan: ComponentPlan, scheme: Scheme, product: Product) -> Tensor:
    """A product in the plan's integers."""
    if product.attends:
        return _attend(plan, product)
    layer, x, weight = plan.layer(product.modules), product.x, product.weight
    if not plan.quantizes(layer):
        return product.run(x, weight)
    sites, divisor = plan.statistics.sites, plan.divisors.get(layer)
    if divisor is not None:  # powers of two: exact
        factor = torch.from_numpy(divisor)
        x, weight = x / factor, weight * factor[:, None]
    x = round_activation(x, sites[product.site].bounds(plan.method, divisor), scheme)
    result = product.run(x, round_weight(weight, product.channel_axis, scheme))
    if product.convolves and scheme.conv_output:
        return round_activation(result, sites[f"{product.site}/output"].bounds(plan.method), scheme)
    return result


def _attend(plan: ComponentPlan, product: Product) -> Tensor:
    """A product of two activations: in integers if it is one of a quantised attention."""
    layers = {attention_layer(module) for module in product.modules} & plan.attention
    if not layers or layers & plan.kept:
        return product.run(product.x, product.weight)
    sites = plan.statistics.sites
    x_scale, zero = left_range(sites[product.site].bounds(plan.method))
    scale, _ = right_range(sites[f"{product.site}/right"].bounds(plan.method))
    x = ((product.x / float(x_scale)).round() + zero).clamp(0, 255).sub(zero) * float(x_scale)
    return product.run(x, (product.weight / float(scale)).round().clamp(-128, 127) * float(scale))


def quantize(model: ir.Model, plan: ComponentPlan, scheme: Scheme) -> ir.Model:
    """A copy of the graph with all layers quantised except the plan's `kept`."""
    layers = {str(node.name): layer_of(node) for node in trained(model.graph)}
    chosen = [each for each in attentions(model.graph) if each.layer in plan.attention - plan.kept]
    operands = [(str(node.name), index) for each in chosen for node, index in each.operands]
    made = smooth(model.clone(), plan.divisors)
    adopt(made.graph, scheme)
    rewrite = _Rewrite(made.graph, plan, scheme)
    by_name = {str(node.name): node for node in made.graph}
    rewrite.attend([(by_name[name], index) for name, index in operands])
    rewrite.run({n: layers[str(n.name)] for n in trained(made.graph)})
    return made


class _Rewrite:
    """One pass over the products of a graph, in graph order."""

    def __init__(self, graph: ir.Graph, plan: ComponentPlan, scheme: Scheme) -> None:
        self._writer = Writer(graph, scheme)
        self._plan = plan
        self._scheme = scheme
        self._activations: dict[ir.Value, tuple[ir.Value, np.float32]] = {}

    def run(self, layers: Mapping[ir.Node, str]) -> None:
        for node, layer in layers.items():
            if layer not in self._plan.kept:
                self._quantize(node, layer)
        self._writer.finish()

    def attend(self, operands: Iterable[tuple[ir.Node, int]]) -> None:
        """Round operands of products of two activations."""
        for node, index in operands:
            x = node.inputs[index]
            assert x is not None
            (scale, zero), kind = (
                (right_range(self._bounds(x)), RIGHT) if index else (left_range(self._bounds(x)), LEFT)
            )
            nodes, value = self._writer.fixed(x, scale, zero, kind)
            node.graph.insert_before(node, nodes)  # type: ignore[union-attr]
            node.replace_input_with(index, value)

    def _quantize(self, node: ir.Node, layer: str) -> None:
        fold_factors(node)
        x, x_scale = self._activation(node, layer)
        bias = self._bias(node)
        least: Floats | float = 0.0 if bias is None else (np.abs(bias) / (x_scale * MAX_BIAS)).astype(np.float32)
        weight, scale = self._weight(node, least)
        if bias is not None and (np.abs(bias) > MAX_BIAS * x_scale * scale).any():
            bias = None  # scales of the model's own, too small for the bias in integers
        if bias is not None:
            steps = np.broadcast_to(scale * x_scale, bias.shape)
            integers, name = np.rint(bias / steps).astype(np.int32), str(node.inputs[2].name)  # type: ignore[union-attr]
            node.replace_input_with(2, self._writer.stored(name, integers, steps, 0, node))
        node.replace_input_with(0, x)
        node.replace_input_with(1, weight)
        if node.op_type == "Conv" and self._scheme.conv_output:
            self._round_output(node)

    def _activation(self, node: ir.Node, layer: str) -> tuple[ir.Value, np.float32]:
        x = node.inputs[0]
        assert x is not None
        if is_dequantized(x):
            return x, np.float32(scale_of(x))
        if x not in self._activations:
            scale, zero = self._scheme.activations(self._bounds(x, layer))
            nodes, value = self._writer.fixed(x, scale, zero)
            node.graph.insert_before(node, nodes)  # type: ignore[union-attr]
            self._activations[x] = value, scale
        return self._activations[x]

    def _weight(self, node: ir.Node, least: Floats | float) -> tuple[ir.Value, Floats]:
        """The dequantised weight and its scales: the model's own, or new ones."""
        given = node.inputs[1]
        if given is None or not is_dequantized(given):
            return self._writer.weight(node, least)
        return given, np.atleast_1d(scale_of(given)).astype(np.float32)

    def _bias(self, node: ir.Node) -> Floats | None:
        """The bias (N,) to be stored as integers, if there is one."""
        tensor = constant_of(node.inputs[2]) if len(node.inputs) > 2 else None
        channels = weight_shape(node)[output_axis(node)]
        if tensor is None or not self._scheme.bias or tensor.size not in (1, channels):
            return None
        bias: Floats = np.broadcast_to(tensor.numpy().astype(np.float32).reshape(-1), (channels,))
        return bias

    def _round_output(self, node: ir.Node) -> None:
        """Quantise a convolution's output for all its readers."""
        y = node.outputs[0]
        if str(y.name) not in self._plan.statistics.tensors:
            return  # the model quantised the convolution, and may have quantised this
        scale, zero = self._scheme.activations(self._bounds(y))
        nodes, value = self._writer.fixed(y, scale, zero)
        ir.convenience.replace_all_uses_with(y, value, replace_graph_outputs=True)
        nodes[0].replace_input_with(0, y)
        node.graph.insert_after(node, nodes)  # type: ignore[union-attr]
        value.shape, value.type = y.shape, y.type
        if value.is_graph_output():
            move_name(y, value, "_QuantizeLinear_Input")
        self._activations[value] = value, scale

    def _bounds(self, value: ir.Value, layer: str = "") -> Bounds:
        return self._plan.statistics.tensors[str(value.name)].bounds(self._plan.method, self._plan.divisors.get(layer))
