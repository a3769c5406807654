"""The faults: small edits of one graph of a healthy bundle, or of its manifest, sealed again with right hashes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from perceiver_exporters.bundle.sealing import seal
from perceiver_runtime import load_bundle
from perceiver_runtime.manifest import MANIFEST_NAME, Manifest

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT
Edit = Callable[[ir.Model], None]


@dataclass(frozen=True)
class Fault:
    """`edit` is made to `component` of the `subject` exported at `precision`; bisect has to blame one of `nodes`.

    `rule` is the claim that verify finds broken, where numbers on a CPU may not show the fault.
    """

    subject: str
    precision: str
    component: str
    edit: Edit
    nodes: tuple[str, ...]
    rule: str = ""


def seed(healthy: Path, broken: Path, component: str, edit: Edit) -> Path:
    """A copy of a bundle whose component was edited; only its numbers can tell."""
    shutil.copytree(healthy, broken)
    manifest = load_bundle(broken).manifest
    path = broken / manifest.component(component).onnx
    model = ir.load(path)
    for value in model.graph.initializers.values():
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy().copy(), dtype=value.const_value.dtype, name=value.name)
    edit(model)
    model.graph.sort()
    ir.save(model, path)
    return reseal(manifest, broken)


def seed_manifest(healthy: Path, broken: Path, edit: Callable[[Manifest], Manifest]) -> Path:
    """A copy of a bundle with an edited manifest."""
    shutil.copytree(healthy, broken)
    return reseal(edit(load_bundle(broken).manifest), broken)


def reseal(manifest: Manifest, directory: Path) -> Path:
    """Write a manifest that has every file's hash as it is now."""
    (directory / MANIFEST_NAME).unlink()
    seal(manifest, directory)
    return directory


def node_of(model: ir.Model, name: str) -> ir.Node:
    return next(node for node in model.graph if node.name == name)


def _constant(model: ir.Model, array: np.ndarray, name: str) -> ir.Value:
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    model.graph.register_initializer(value)
    return value


def swap(first: str, second: str) -> Edit:
    """Two linear layers change weights, and biases, if both have one."""

    def edit(model: ir.Model) -> None:
        names = {node.name for node in model.graph}
        biased = {f"{first}/Add", f"{second}/Add"} <= names
        for operator in ("MatMul", "Add") if biased else ("MatMul",):
            one, two = node_of(model, f"{first}/{operator}"), node_of(model, f"{second}/{operator}")
            ours, theirs = one.inputs[1], two.inputs[1]
            one.replace_input_with(1, theirs)
            two.replace_input_with(1, ours)

    return edit


def read_from(node: str, other: str, index: int = 1) -> Edit:
    """A node reads what another node reads."""
    return lambda model: node_of(model, node).replace_input_with(index, node_of(model, other).inputs[index])


def bypass(node: str, keep: int = 0) -> Edit:
    """A node is dropped: its readers read one of its inputs."""

    def edit(model: ir.Model) -> None:
        dropped = node_of(model, node)
        kept = dropped.inputs[keep]
        assert kept is not None
        ir.convenience.replace_all_uses_with(dropped.outputs[0], kept)
        model.graph.remove(dropped, safe=True)

    return edit


def attribute(node: str, key: str, value: int | float | str) -> Edit:
    def edit(model: ir.Model) -> None:
        node_of(model, node).attributes[key] = ir.convenience.convert_attribute(key, value)

    return edit


def constant(node: str, index: int, change: Callable[[np.ndarray], np.ndarray]) -> Edit:
    """A node reads a changed copy of a constant; other readers of it do not."""

    def edit(model: ir.Model) -> None:
        target = node_of(model, node)
        value = target.inputs[index]
        assert value is not None
        assert value.const_value is not None
        array = value.const_value.numpy()
        made = np.array(change(array), array.dtype, order="C")
        target.replace_input_with(index, _constant(model, made, f"{node}.seeded"))

    return edit


def overflowing_norm(node: str) -> Edit:
    """x / rms(x) as a GPU computes it in FP16: each result is rounded to half before the next step reads it."""

    def edit(model: ir.Model) -> None:
        old = node_of(model, node)
        steps = _Steps(model, old)
        x = steps.half(old.inputs[0])
        mean = steps.half(steps.add("ReduceMean", x, steps.axis))
        centred = steps.half(steps.add("Sub", x, mean))
        squared = steps.half(steps.add("Mul", centred, centred))
        root = steps.half(steps.add("Sqrt", steps.half(steps.add("ReduceMean", squared, steps.axis))))
        scaled = steps.add("Mul", steps.add("Div", centred, root), old.inputs[1])
        steps.replace(steps.add("Add", scaled, old.inputs[2]))

    return edit


def overflowing_softmax(node: str) -> Edit:
    """exp(x) / sum(exp(x)), rounded to half after each step."""

    def edit(model: ir.Model) -> None:
        old = node_of(model, node)
        steps = _Steps(model, old)
        exponentials = steps.half(steps.add("Exp", steps.half(old.inputs[0])))
        steps.replace(steps.add("Div", exponentials, steps.half(steps.add("ReduceSum", exponentials, steps.axis))))

    return edit


def in_half(node: str) -> Edit:
    """The node itself, with FP16 operands."""

    def edit(model: ir.Model) -> None:
        target = node_of(model, node)
        for i, value in enumerate(target.inputs):
            cast = ir.node("Cast", [value], {"to": HALF}, name=f"{node}/seeded{i}")
            model.graph.insert_before(target, cast)
            target.replace_input_with(i, cast.outputs[0])
        result = ir.node("Cast", [target.outputs[0]], {"to": SINGLE}, name=f"{node}/seeded")
        ir.convenience.replace_all_uses_with(target.outputs[0], result.outputs[0])
        target.outputs[0].type = ir.TensorType(HALF)
        result.replace_input_with(0, target.outputs[0])
        model.graph.insert_after(target, result)

    return edit


def scaled_quantisers(factor: float) -> Edit:
    """Every activation's scale as another data set would have given it."""

    def edit(model: ir.Model) -> None:
        scales = {n.inputs[1] for n in model.graph if n.op_type == "QuantizeLinear"}
        for value in scales:
            assert value is not None
            assert value.const_value is not None
            value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name=value.name)

    return edit


class _Steps:
    """Nodes put in the place of another."""

    def __init__(self, model: ir.Model, old: ir.Node) -> None:
        self._model, self._old, self._count = model, old, 0
        self.axis = _constant(model, np.array([-1]), f"{old.name}.axis")

    def add(self, operator: str, *inputs: ir.Value | None) -> ir.Value:
        self._count += 1
        node = ir.node(operator, list(inputs), name=f"{self._old.name}/seeded{self._count}")
        self._model.graph.insert_before(self._old, node)
        return node.outputs[0]

    def half(self, value: ir.Value | None) -> ir.Value:
        """Rounded to FP16, and widened again: a CPU would otherwise go on in FP32."""
        rounded = self._cast(value, HALF)
        return self._cast(rounded, SINGLE)

    def replace(self, made: ir.Value) -> None:
        output, name = self._old.outputs[0], str(self._old.outputs[0].name)
        ir.convenience.replace_all_uses_with(output, made)
        self._model.graph.remove(self._old, safe=True)
        made.name = name

    def _cast(self, value: ir.Value | None, dtype: ir.DataType) -> ir.Value:
        self._count += 1
        node = ir.node("Cast", [value], {"to": dtype}, name=f"{self._old.name}/seeded{self._count}")
        self._model.graph.insert_before(self._old, node)
        return node.outputs[0]


BLOCK = "processor_block"
FAULTS: dict[str, Fault] = {
    "keys and values swapped": Fault(
        "perceiver",
        "fp32",
        BLOCK,
        swap("1.attention.key", "1.attention.value"),
        ("1.attention.key/MatMul", "1.attention.value/MatMul"),
    ),
    "queries and keys swapped, in fp16": Fault(
        "perceiver",
        "fp16",
        BLOCK,
        swap("0.attention.query", "0.attention.key"),
        ("0.attention.query/MatMul", "0.attention.key/MatMul"),
    ),
    "weight of another layer": Fault(
        "perceiver", "fp16", BLOCK, read_from("1.mlp.2/MatMul", "0.mlp.2/MatMul"), ("1.mlp.2/MatMul",)
    ),
    "missing bias": Fault("perceiver", "int8", BLOCK, bypass("1.mlp.0/Add"), ("1.mlp.0/Add",)),
    "missing bias of the head": Fault(
        "perceiver", "fp32", "decoder", constant("head/Gemm", 2, np.zeros_like), ("head/Gemm",)
    ),
    "dropped residual": Fault("perceiver", "fp16", BLOCK, bypass("0/Add", keep=1), ("0/Add",)),
    "dropped last residual": Fault(
        "perceiver", "fp32", "encoder", bypass("layer.attention.output/Add"), ("layer.attention.output/Add",)
    ),
    "transposed position table": Fault("perceiver", "fp32", "encoder", constant("Add", 1, np.transpose), ("Add",)),
    "wrong normalisation epsilon": Fault(
        "perceiver",
        "fp32",
        BLOCK,
        attribute("1.norm/LayerNormalization", "epsilon", 1e-3),
        ("1.norm/LayerNormalization",),
    ),
    "tanh for erf": Fault(
        "perceiver", "fp32", BLOCK, attribute("0.mlp.1/Gelu", "approximate", "tanh"), ("0.mlp.1/Gelu",)
    ),
    "softmax over queries": Fault(
        "perceiver", "fp16", BLOCK, attribute("0.attention/Softmax", "axis", -2), ("0.attention/Softmax",)
    ),
    "scale of one head": Fault(
        "perceiver", "fp32", BLOCK, constant("1.attention/Mul", 1, lambda x: x / 2), ("1.attention/Mul",)
    ),
    "normalisation overflows in fp16": Fault(
        "loud", "fp16", "layer", overflowing_norm("norm/LayerNormalization"), ("norm/LayerNormalization",)
    ),
    "normalisation left to an fp16 kernel": Fault(
        "loud", "fp16", "layer", in_half("norm/LayerNormalization"), ("norm/LayerNormalization",), "low-sum"
    ),
    "softmax over 65,536 keys overflows in fp16": Fault(
        "long", "fp16", "layer", overflowing_softmax("attention/Softmax"), ("attention/Softmax",)
    ),
    "softmax over 65,536 keys left to an fp16 kernel": Fault(
        "long", "fp16", "layer", in_half("attention/Softmax"), ("attention/Softmax",), "low-sum"
    ),
    "wrong per-channel axis": Fault(
        "perceiver",
        "int8",
        BLOCK,
        attribute("0.mlp.0/MatMul.constant_DequantizeLinear", "axis", 0),
        ("0.mlp.0/MatMul.constant_DequantizeLinear",),
        "weight-axis",
    ),
    "stale calibration": Fault(
        "perceiver", "int8", BLOCK, scaled_quantisers(0.25), ("0.norm/LayerNormalization_QuantizeLinear",)
    ),
    "zero point off by one": Fault(
        "perceiver",
        "int8",
        BLOCK,
        constant("1.mlp.1/Gelu_DequantizeLinear", 2, lambda x: x + 1),
        ("1.mlp.1/Gelu_DequantizeLinear",),
        "quantiser-pair",
    ),
    "zero point of a weight off by one": Fault(
        "perceiver",
        "int8",
        BLOCK,
        constant("1.attention.output/MatMul.constant_DequantizeLinear", 2, lambda x: x - 1),
        ("1.attention.output/MatMul.constant_DequantizeLinear",),
        "weight-zero",
    ),
    "queries and keys swapped, in dynamic int8": Fault(
        "perceiver",
        "int8-dynamic",
        BLOCK,
        swap("0.attention.query", "0.attention.key"),
        ("0.attention.query/MatMul", "0.attention.key/MatMul"),
    ),
    "missing bias behind a product in dynamic int8": Fault(
        "perceiver", "int8-dynamic", "decoder", constant("head/Gemm_bias", 1, np.zeros_like), ("head/Gemm_bias",)
    ),
    "scales of a dynamic int8 weight in another order": Fault(
        "perceiver",
        "int8-dynamic",
        BLOCK,
        constant("0.mlp.0/MatMul.constant_DequantizeLinear", 1, lambda x: x[::-1]),
        ("0.mlp.0/MatMul.constant_DequantizeLinear",),
    ),
    "range of another tensor": Fault(
        "perceiver",
        "int8-dynamic",
        BLOCK,
        read_from("1.mlp.1/Gelu_DequantizeLinear", "1.norm/LayerNormalization_DequantizeLinear"),
        ("1.mlp.1/Gelu_DequantizeLinear",),
        "quantiser-pair",
    ),
    "zero point of a dynamic int8 weight off by one": Fault(
        "perceiver",
        "int8-dynamic",
        BLOCK,
        constant("1.attention.output/MatMul.constant_DequantizeLinear", 2, lambda x: x + 1),
        ("1.attention.output/MatMul.constant_DequantizeLinear",),
        "weight-zero",
    ),
}


def truncate(manifest: Manifest) -> Manifest:
    """The shared block runs once less."""
    steps = tuple(
        dataclasses.replace(step, repeat=step.repeat - 1) if step.component == BLOCK else step
        for step in manifest.pipeline.steps
    )
    return dataclasses.replace(manifest, pipeline=dataclasses.replace(manifest.pipeline, steps=steps))
