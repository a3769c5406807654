from __future__ import annotations

import dataclasses

import numpy as np
import onnx_ir as ir
import pytest
import torch
from factories.weights import randomise
from torch import Tensor, nn

from perceiver_deploy.models.image_classifier import ImageClassifier
from perceiver_exporters.component import Blueprint, Component
from perceiver_exporters.ir.flops import flops, parameters
from perceiver_exporters.ir.graph import has_constant_weight, products
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.precision import PRECISIONS, Request
from perceiver_exporters.precision.audit.constants import audit
from perceiver_exporters.precision.integers.scheme import SCHEMES
from perceiver_exporters.reference import Reference
from perceiver_runtime.errors import CheckError
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec

from .conftest import CONFIG, FAMILY

import onnxruntime as ort


def run(graph: ir.Model, inputs: dict[str, Array]) -> list[Array]:
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    outputs: list[Array] = session.run(None, inputs)
    return outputs


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_every_component_equals_pytorch_at_any_batch(
    blueprint: Blueprint, traced: dict[str, ir.Model], batch: int
) -> None:
    seen = Reference(blueprint.cut).run(FAMILY.sample(CONFIG, batch, np.random.default_rng(batch)))
    for name, graph in traced.items():
        (got,) = run(graph, dict(seen.first[name].inputs))
        (expected,) = seen.first[name].outputs.values()
        assert relative_l2(expected, got) < 2e-6, name


def test_reference_equals_the_whole_model(blueprint: Blueprint, model: ImageClassifier) -> None:
    feeds = FAMILY.sample(CONFIG, 3, np.random.default_rng(7))
    whole = model(torch.from_numpy(feeds["pixel_values"])).numpy()
    assert np.array_equal(Reference(blueprint.cut).run(feeds).values["logits"], whole)


def test_names_are_those_of_the_specs_and_of_the_modules(blueprint: Blueprint, traced: dict[str, ir.Model]) -> None:
    for component in blueprint.cut.components:
        graph = traced[component.name].graph
        assert [v.name for v in graph.inputs] == [s.name for s in component.inputs]
        assert [v.name for v in graph.outputs] == [s.name for s in component.outputs]
        assert [str(d) for d in graph.inputs[0].shape or ()] == [str(d) for d in component.inputs[0].shape]
    names = {str(node.name) for node in traced["processor_block"].graph}
    assert {"0.attention.query/MatMul", "1.mlp.2/MatMul", "0.attention/Softmax"} <= names


def test_no_trace_of_the_exporting_machine(traced: dict[str, ir.Model]) -> None:
    for graph in traced.values():
        content = ir.to_proto(graph).SerializeToString()
        assert b".py" not in content
        assert b"site-packages" not in content


def test_attention_keeps_its_sizes_known(traced: dict[str, ir.Model]) -> None:
    """No shape arithmetic but the batch size, and no value of unknown shape: quantisers and engines rely on it."""
    for graph in traced.values():
        shapes = [node.op_type for node in graph.graph if node.op_type in ("Shape", "Slice")]
        assert len(shapes) <= 1
        for node in graph.graph:
            assert all(d != "None" for v in node.outputs for d in map(str, v.shape or ["None"])), node.name


def test_parameters_and_flops(blueprint: Blueprint, model: ImageClassifier, traced: dict[str, ir.Model]) -> None:
    assert sum(parameters(g) for g in traced.values()) == sum(p.numel() for p in model.parameters())
    block = blueprint.cut.component("processor_block")
    latents, dim, layers = 16, 64, 2
    products_of_a_layer = 6 * latents * dim * dim + 2 * latents * latents * dim
    sized = SizedGraph(traced["processor_block"], block.inputs, blueprint.cut.profile)
    assert flops(sized) == 2 * layers * products_of_a_layer


class SharedLayer(nn.Module):
    """One layer applied three times in one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(96, 96)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.layer(x))
        return x


def component(module: nn.Module, *inputs: TensorSpec, output: TensorSpec) -> Component:
    return Component("toy", randomise(module, 0), inputs, (output,))


X = TensorSpec("x", "float32", ("batch", "length", 96))
Y = TensorSpec("y", "float32", ("batch", "length", 96))
PROFILE = Profile("default", {"batch": Range(1, 1, 8), "length": Range(1, 2, 9)})


def test_a_weight_shared_by_layers_is_one_constant_and_needs_no_transpose() -> None:
    graph = trace(component(SharedLayer(), X, output=Y), PROFILE)
    nodes = list(products(graph.graph))
    assert len(nodes) == 3
    assert all(has_constant_weight(node) for node in nodes)
    assert len({node.inputs[1] for node in nodes}) == 1
    assert not [node for node in graph.graph if node.op_type == "Transpose"]
    assert sum(v.const_value.nbytes for v in graph.graph.initializers.values() if v.const_value) < 1.1 * 4 * 97 * 96
    for shape in ((1, 1, 96), (5, 3, 96)):
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        expected = SharedLayer.forward(randomise(SharedLayer(), 0), torch.from_numpy(x)).numpy()
        assert relative_l2(expected, run(graph, {"x": x})[0]) < 1e-6


class Masked(nn.Module):
    """Attention under a boolean mask, or the same as a float mask."""

    def __init__(self, added: bool) -> None:
        super().__init__()
        self.added = added

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        heads = x.unsqueeze(1)
        bias = mask[:, None, None, :]
        if self.added:
            bias = torch.zeros_like(bias, dtype=x.dtype).masked_fill(~bias, float("-inf"))
        return nn.functional.scaled_dot_product_attention(heads, heads, heads, attn_mask=bias).squeeze(1)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("added", [False, True], ids=["boolean", "float"])
def test_a_mask_excludes_keys_and_a_row_without_keys_is_zero_as_in_pytorch(added: bool, precision: str) -> None:
    mask = TensorSpec("mask", "bool", ("batch", "length"))
    inputs = (X, mask)
    graph = trace(component(Masked(added), *inputs, output=Y), PROFILE)
    chosen = PRECISIONS[precision]
    findings = audit(SizedGraph(graph, inputs, PROFILE), chosen.format) if chosen.format else ()
    graph = chosen.rewrite(graph, Request("toy", SCHEMES["tensorrt"], lambda: iter(()), findings, None))
    x = np.random.default_rng(0).standard_normal((4, 5, 96), dtype=np.float32)
    keep = np.arange(5)[None] < np.array([[5], [2], [1], [0]])
    expected = Masked(added)(torch.from_numpy(x), torch.from_numpy(keep)).numpy()
    assert not expected[3].any()
    got = run(graph, {"x": x, "mask": keep})[0]
    assert relative_l2(expected, got) < (1e-6 if precision == "fp32" else 1e-3)
    assert not got[3].any()


class Contraction(nn.Module):
    """einsum of its input and a constant."""

    other: Tensor

    def __init__(self, equation: str, *shape: int) -> None:
        super().__init__()
        self.equation = equation
        self.register_buffer("other", torch.randn(shape, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum(self.equation, x, self.other)


@pytest.mark.parametrize(
    ("equation", "shape", "result", "operators"),
    [
        ("b i, j -> b i j", (4,), ("batch", 3, 4), {"Unsqueeze", "Mul"}),
        ("... , f -> ... f", (4,), ("batch", 3, 4), {"Unsqueeze", "Mul"}),
        ("b i, i -> i b", (3,), (3, "batch"), {"Transpose", "Unsqueeze", "Mul"}),
        ("b i, i j -> b j", (3, 5), ("batch", 5), {"MatMul"}),
    ],
)
def test_einsum_is_a_product(
    equation: str, shape: tuple[int, ...], result: tuple[int | str, ...], operators: set[str]
) -> None:
    module = Contraction(equation, *shape)
    made = component(module, TensorSpec("x", "float32", ("batch", 3)), output=TensorSpec("y", "float32", result))
    graph = trace(made, Profile("default", {"batch": Range(1, 2, 8)}))
    assert {node.op_type for node in graph.graph} <= operators | {"Constant"}
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    (got,) = run(graph, {"x": x})
    assert relative_l2(module(torch.from_numpy(x)).numpy(), got) < 1e-6


def test_a_fixed_range_keeps_its_symbol() -> None:
    fixed = Profile("default", {"batch": Range(1, 1, 8), "length": Range(4, 4, 4)})
    graph = trace(component(SharedLayer(), X, output=Y), fixed)
    assert [str(d) for d in graph.graph.inputs[0].shape or ()] == ["batch", "length", "96"]


def test_specs_that_the_graph_does_not_keep_are_refused(blueprint: Blueprint) -> None:
    decoder = blueprint.cut.component("decoder")
    wrong = dataclasses.replace(decoder, outputs=(TensorSpec("logits", "float32", ("batch", 11)),))
    with pytest.raises(CheckError, match=r"decoder: the graph's outputs are .*batch, 10.*specs say .*batch, 11"):
        trace(wrong, blueprint.cut.profile)


class Namesakes(nn.Module):
    """Parameters named like an output, and like the input."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.latents = nn.Parameter(torch.randn(8)), nn.Parameter(torch.randn(8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x * self.x + self.latents, x - self.latents


def test_parameters_may_be_named_like_inputs_and_outputs() -> None:
    x, latents, rest = (TensorSpec(name, "float32", ("batch", 8)) for name in ("x", "latents", "rest"))
    module = Namesakes()
    graph = trace(Component("net", module, (x,), (latents, rest)), Profile("p", {"batch": Range(1, 2, 4)}))
    given = np.random.default_rng(0).standard_normal((3, 8), dtype=np.float32)
    expected = module(torch.from_numpy(given))
    for array, tensor in zip(run(graph, {"x": given}), expected, strict=True):
        np.testing.assert_allclose(array, tensor.detach().numpy(), rtol=1e-6)
    assert parameters(graph) == 16


class Untraceable(nn.Module):
    """Its output depends on a value."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_a_module_that_cannot_be_traced_names_its_component() -> None:
    with pytest.raises(CheckError, match="component toy can't be traced: GuardOnDataDependent"):
        trace(component(Untraceable(), X, output=Y), PROFILE)


def test_tracing_is_silent(blueprint: Blueprint, capfd: pytest.CaptureFixture[str]) -> None:
    trace(component(SharedLayer(), X, output=Y), PROFILE)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
