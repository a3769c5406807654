"""A whole module becomes components: what is found, and that it computes what the module computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from cutting import modules
from factories.weights import randomise
from torch import nn

from perceiver_deploy.sources.module import Call
from perceiver_exporters.component import Cut
from perceiver_exporters.cutting import Cutting, cut_module
from perceiver_exporters.cutting.call import Called, arrays, tensors
from perceiver_exporters.reference import Reference, in_double
from perceiver_runtime.errors import CheckError, UsageError
from perceiver_runtime.tensors import Profile

Shapes = Mapping[str, Sequence[int | str]]


def cut(
    module: nn.Module, example: Mapping[str, Any], dynamic: Shapes | None = None, names: Sequence[str] = ()
) -> Cutting:
    config = Call(example, dynamic or {}).config(module, "", "")
    return cut_module(module.eval(), example, config.inputs, Profile("default", config.ranges), names)


def steps(made: Cut) -> list[tuple[str, int, str]]:
    return [(step.component, step.repeat, step.stage) for step in made.pipeline.steps]


def whole(module: nn.Module, example: Mapping[str, Any]) -> dict[str, np.ndarray]:
    called = Called(module.eval(), example)
    with torch.no_grad():
        results = called(*tensors(example).values())
    return {name: result.numpy() for name, result in zip(called.seen.outputs, results, strict=True)}


def run(made: Cut, example: Mapping[str, Any]) -> dict[str, np.ndarray]:
    values = Reference(made).run(arrays(example)).values
    shown = made.pipeline.shown
    return {spec.name: values[shown[spec.name]] for spec in made.pipeline.outputs}


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


X = numbers(3, 7, 6)
QUERIES = {"x": X, "queries": numbers(3, 4, 16)}
ENCODER, DECODER = ("encoder", 1, "encode"), ("decoder", 1, "decode")
FOUND: dict[str, tuple[nn.Module, dict[str, Any], Shapes, list[tuple[str, int, str]]]] = {
    "tied": (
        modules.Tied(),
        QUERIES,
        {"x": ("batch", "length", 6), "queries": ("batch", "asked", 16)},
        [ENCODER, ("processor_block", 3, "encode"), DECODER],
    ),
    "alternating": (modules.Alternating(), {"x": X}, {}, [ENCODER, ("processor_block", 3, "encode"), DECODER]),
    "unlike": (modules.Unlike(), {"x": X, "temperature": 2.0}, {}, [ENCODER, ("processor", 1, "encode")]),
    "resampler": (
        modules.Resampler(),
        {"x": numbers(3, 7, 16)},
        {"x": ("batch", "length", 16)},
        [("model", 1, "encode")],
    ),
}


@pytest.fixture(scope="module", params=FOUND)
def found(request: pytest.FixtureRequest) -> tuple[str, nn.Module, dict[str, Any], Cutting]:
    module, example, dynamic, _ = FOUND[request.param]
    return request.param, randomise(module), example, cut(module, example, dynamic)


def test_components_are_found(found: tuple[str, nn.Module, dict[str, Any], Cutting]) -> None:
    name, _, _, made = found
    assert steps(made.cut) == FOUND[name][3]
    assert bool(made.note) == (len(made.cut.components) == 1)


def test_the_cut_computes_what_the_module_does(found: tuple[str, nn.Module, dict[str, Any], Cutting]) -> None:
    _, module, example, made = found
    expected, got = whole(module, example), run(made.cut, example)
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)


def test_other_sizes_too(found: tuple[str, nn.Module, dict[str, Any], Cutting]) -> None:
    name, module, example, made = found
    longer = {n: v.repeat(2, *[1] * (v.ndim - 1)) if torch.is_tensor(v) else v for n, v in example.items()}
    if "length" in made.cut.profile.dimensions:
        longer["x"] = longer["x"][:, :5]
    expected, got = whole(module, longer), run(made.cut, longer)
    for output, array in expected.items():
        np.testing.assert_allclose(got[output], array, rtol=1e-6, atol=1e-6, err_msg=name)


def test_components_hold_the_weights_of_the_module_under_their_paths(
    found: tuple[str, nn.Module, dict[str, Any], Cutting],
) -> None:
    _, module, _, made = found
    own = dict(module.named_parameters())
    held = {name: p for c in made.cut.components for name, p in c.module.named_parameters()}
    assert held
    assert all(own[name] is parameter for name, parameter in held.items())
    used = {name for name in own if not name.startswith("tied") and ("norm_inputs" not in name or name in held)}
    assert used <= set(held)


def test_fp64_changes_every_type(found: tuple[str, nn.Module, dict[str, Any], Cutting]) -> None:
    _, _, example, made = found
    double, single = run(in_double(made.cut), example), run(made.cut, example)
    for name, array in double.items():
        assert array.dtype == np.float64
        assert 0 < np.abs(array - single[name]).max() < 1e-4


def test_weights_that_recur_with_results_in_between_stay_apart() -> None:
    class Collected(modules.Tied):
        def forward(self, x: torch.Tensor, queries: torch.Tensor) -> dict[str, torch.Tensor]:
            latents, all_latents = self.read(self.latents.expand(x.shape[0], -1, -1), x), []
            for _ in range(self.repeats):
                for layer in self.layers:
                    latents = layer(latents)
                all_latents.append(latents)
            return {"scores": self.head(self.ask(queries, latents)), "all": torch.stack(all_latents)}

    module = Collected()
    made = cut(module, QUERIES)
    assert all(step.repeat == 1 for step in made.cut.pipeline.steps)
    for name, array in whole(module, QUERIES).items():
        np.testing.assert_array_equal(run(made.cut, QUERIES)[name], array)


def test_named_submodules_are_components() -> None:
    module = modules.Unlike()
    example = {"x": X}
    made = cut(module, example, names=("read", "layers.*", "head"))
    assert steps(made.cut) == [("read", 1, "encode"), ("layers", 1, "encode"), ("head", 1, "encode")]
    for name, array in whole(module, example).items():
        np.testing.assert_array_equal(run(made.cut, example)[name], array)


def test_named_submodules_keep_their_repetitions() -> None:
    made = cut(modules.Tied(), QUERIES, names=("read", "layers", "ask"))
    assert steps(made.cut)[1][:2] == ("layers", 3)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (("reed",), "expected submodules that run, got 'reed'; did you mean read"),
        (("layers.*", "layers.1"), "run in turns"),
    ],
)
def test_names_that_are_no_cut_are_refused(names: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        cut(modules.Unlike(), {"x": X}, names=names)


STREAMS = {"streams.left": numbers(3, 2, 4), "streams.right": torch.arange(24).reshape(3, 2, 4), "scale": 0.5}


def test_inputs_and_results_of_any_structure_are_named() -> None:
    module = modules.Structured()
    made = cut(module, STREAMS).cut
    assert [str(spec) for spec in made.pipeline.inputs] == [
        "streams.left: float32[batch, 2, 4]",
        "streams.right: int64[batch, 2, 4]",
    ]
    assert [spec.name for spec in made.pipeline.outputs] == ["logits", "parts.output_0", "parts.output_1"]
    for name, array in whole(module, STREAMS).items():
        np.testing.assert_array_equal(run(made, STREAMS)[name], array)


def test_results_that_nothing_computes_are_left_out() -> None:
    class Echo(modules.Resampler):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {"x": x, "table": self.latents, "sum": x.sum(-1), "same": x.sum(-1)}

    made = cut(Echo(), {"x": X}).cut
    assert [spec.name for spec in made.pipeline.outputs] == ["sum", "same"]
    np.testing.assert_array_equal(run(made, {"x": X})["same"], X.sum(-1).numpy())


def test_an_optional_input_is_one_where_the_example_has_it() -> None:
    example = {**STREAMS, "mask": torch.ones(3, 2)}
    assert [spec.name for spec in cut(modules.Structured(), example).cut.pipeline.inputs][2:] == ["mask"]


@pytest.mark.parametrize(
    ("example", "words"),
    [
        ({"streams.left": X}, "needs scale, got streams"),
        ({**STREAMS, "masc": X}, "got 'masc'; did you mean mask"),
    ],
)
def test_missing_and_misnamed_inputs_are_refused(example: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        cut(modules.Structured(), example)


def test_a_size_taken_for_a_constant_is_refused_with_its_line() -> None:
    with pytest.raises(CheckError, match=r"modules\.py:\d+ in forward takes batch for the constant 3"):
        cut(modules.FixedByLen(), {"x": numbers(3, 5, 4)})
    made = cut(modules.FixedByLen(), {"x": numbers(3, 5, 4)}, {"x": (3, 5, 4)}).cut
    assert made.profile.dimensions == {}


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (modules.Branching(), r"Branching can't be traced: .* at .*modules\.py:\d+"),
        (modules.Selecting(), r"the shape of .* at .*modules\.py:\d+ depends on the content"),
        (modules.Lower(), "cpu autocast to bfloat16 can't be exported"),
    ],
    ids=["branch", "shape", "autocast"],
)
def test_what_cannot_be_traced_is_refused_with_its_line(
    module: nn.Module, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckError, match=words):
        cut(module, {"x": numbers(3, 7, 16)})
    assert capsys.readouterr().err == ""


def test_what_a_module_prints_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    cut(modules.Speaking(), {"x": X})
    assert "half" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "example"),
    [
        (modules.Regions(), {"x": numbers(3, 7, 16)}),
        (modules.Positional(), {"left": X, "right": numbers(3, 2, 6)}),
        (nn.LSTM(6, 4, batch_first=True), {"input": X}),
        (nn.TransformerEncoderLayer(6, 2, 12, batch_first=True), {"src": X}),
    ],
    ids=["regions", "positional", "recurrent", "encoder layer"],
)
def test_forms_of_modules(module: nn.Module, example: dict[str, Any]) -> None:
    made = cut(module, example).cut
    for name, array in whole(module, example).items():
        np.testing.assert_allclose(run(made, example)[name], array, rtol=1e-5, atol=1e-6)


def test_layers_that_differ_in_an_index_alone_are_no_repetition() -> None:
    class Indexed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.Parameter(torch.randn(4, 16, 16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for i in (-1, -2):  # whose hashes are equal
                x = torch.tanh(x @ self.weights[i])
            return x

    module, example = Indexed(), {"x": numbers(3, 7, 16)}
    np.testing.assert_array_equal(run(cut(module, example).cut, example)["output"], whole(module, example)["output"])


def test_a_list_of_inputs_is_in_the_order_of_its_numbers() -> None:
    class Listed(nn.Module):
        def forward(self, xs: list[torch.Tensor]) -> torch.Tensor:
            return xs[0] - 2 * xs[1]

    example = {"xs.1": X, "xs.0": X + 1}
    np.testing.assert_allclose(run(cut(Listed(), example).cut, example)["output"], (1 - X).numpy(), atol=1e-6)
    with pytest.raises(UsageError, match="expected the entries 0 to 1 of a list, got 1, 2"):
        cut(Listed(), {"xs.1": X, "xs.2": X})


class Conditional(nn.Module):
    """Computes something else for one size, of the batch or of the length."""

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[self.axis] != 5 else x


class Even(nn.Module):
    """Computes something else for odd lengths."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if x.shape[1] % 2 == 0 else x


@pytest.mark.parametrize(
    ("module", "shape", "words"),
    [
        (Conditional(0), (3, 8, 6), "something else for batch 5"),
        (Conditional(1), (3, 8, 6), "something else for length 5"),
        (Even(), (3, 8, 6), "something else for length 1 at test_cut_module.py"),
    ],
)
def test_conditions_hold_for_every_size(module: nn.Module, shape: tuple[int, ...], words: str) -> None:
    with pytest.raises(CheckError, match=words):
        cut(module, {"x": numbers(*shape)}, {"x": ("batch", "length", 6)})


class Counting(nn.Module):
    """Keeps a number from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x * self.calls


class Remembering(nn.Module):
    """Keeps a tensor from call to call."""

    state: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", torch.zeros(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.state
        self.state = x.mean((0, 1))
        return x


class Accumulating(Remembering):
    """Changes its buffer in place."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.state += x.mean((0, 1))
        return x + self.state


class InPlace(nn.Module):
    """Changes its input."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x += 1
        return x


class Random(nn.Module):
    """Draws noise."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Counting(), "differs between two calls"),
        (Remembering(), "differs between two calls"),
        (Accumulating(), "forward changes the buffer state"),
        (InPlace(), "forward changes the input"),
        (Random(), "differs between two calls"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_graph_cannot_keep_is_refused(module: nn.Module, words: str) -> None:
    with pytest.raises(CheckError, match=words):
        cut(module, {"x": X})
