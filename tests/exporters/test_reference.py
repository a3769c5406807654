from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.export import export_bundle
from perceiver_exporters.reference import Reference, complete
from perceiver_runtime import open_session, verify
from perceiver_runtime.errors import FeedError
from perceiver_runtime.manifest import Source
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.pipeline import Chunk, Pipeline, Step
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec

WIDTH, QUERIES, CHUNK = 8, 3, 4


class Start(nn.Module):
    """The state before any key: weighted sum, weights, largest score."""

    def forward(self, query: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weights = 0.0 * query[..., :1]
        return 0.0 * query, weights, weights - 1e4


class Fold(nn.Module):
    """Attend to one piece of the keys, with a running log-sum-exp."""

    def forward(
        self, query: Tensor, keys: Tensor, bias: Tensor, total: Tensor, weights: Tensor, top: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        scores = query @ keys.transpose(1, 2) + bias[:, None]
        higher = torch.maximum(top, scores.amax(-1, keepdim=True))
        shrink, p = torch.exp(top - higher), torch.exp(scores - higher)
        return total * shrink + p @ keys, weights * shrink + p.sum(-1, keepdim=True), higher


class Finish(nn.Module):
    """What was attended, projected; then one output per query, in pieces."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, WIDTH)

    def forward(self, total: Tensor, weights: Tensor) -> Tensor:
        attended: Tensor = self.project(total / weights)
        return attended


class Scale(nn.Module):
    """Decode a piece of positions against the attended values."""

    def forward(self, attended: Tensor, positions: Tensor) -> Tensor:
        return positions @ attended.transpose(1, 2)


def spec(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", ("batch", *shape))


def folded() -> Cut:
    query, keys, bias = spec("query", QUERIES, WIDTH), spec("keys", "M", WIDTH), spec("bias", "M")
    total, weights, top = spec("total", QUERIES, WIDTH), spec("weights", QUERIES, 1), spec("top", QUERIES, 1)
    made = (spec("total_out", QUERIES, WIDTH), spec("weights_out", QUERIES, 1), spec("top_out", QUERIES, 1))
    attended, positions = spec("attended", QUERIES, WIDTH), spec("positions", "O", WIDTH)
    scores = spec("scores", "O", QUERIES)
    torch.manual_seed(0)
    state = {"total": "total", "weights": "weights", "top": "top"}
    steps = (
        Step("start", {"query": "query"}, {f"{n}_out": n for n in state}, "encode"),
        Step(
            "fold",
            {"query": "query", "keys": "keys", "bias": "bias", **state},
            {f"{n}_out": n for n in state},
            "encode",
            chunk=Chunk("M", CHUNK),
            carry={f"{n}_out": n for n in state},
        ),
        Step("finish", {"total": "total", "weights": "weights"}, {"attended": "attended"}, "encode"),
        Step(
            "scale",
            {"attended": "attended", "positions": "positions"},
            {"scores": "scores"},
            "decode",
            chunk=Chunk("O", CHUNK),
        ),
    )
    components = (
        Component("start", Start(), (query,), made),
        Component("fold", Fold(), (query, keys, bias, total, weights, top), made),
        Component("finish", Finish().requires_grad_(False), (total, weights), (attended,)),
        Component("scale", Scale(), (attended, positions), (scores,)),
    )
    pipeline = Pipeline((query, keys, bias, positions), (scores,), steps, {"bias": 0.0})
    return Cut(components, pipeline, Profile("default", {s: Range(1, 4, 64) for s in ("batch", "M", "O")}))


def feeds(keys: int, positions: int) -> dict[str, Array]:
    random = np.random.default_rng(keys)
    shapes = {"query": (2, QUERIES, WIDTH), "keys": (2, keys, WIDTH), "positions": (2, positions, WIDTH)}
    return {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def unfolded(cut: Cut, given: dict[str, Array]) -> Array:
    query, keys, positions = (torch.from_numpy(given[n]) for n in ("query", "keys", "positions"))
    attended = F.scaled_dot_product_attention(query, keys, keys, scale=1.0)
    scores: Array = Scale()(cut.component("finish").module.project(attended), positions).numpy()
    return scores


@pytest.mark.parametrize("sizes", [(4, 4), (3, 1), (13, 9)])
def test_folding_keys_piece_by_piece_is_attention_to_all_of_them(sizes: tuple[int, int]) -> None:
    cut = folded()
    given = feeds(*sizes)
    seen = list(Reference(cut).calls(given))
    pieces = [-(-n // CHUNK) for n in sizes]
    assert [sum(a.component == name for a in seen) for name in ("fold", "scale")] == pieces
    assert relative_l2(unfolded(cut, given), Reference(cut).run(given).values["scores"]) < 1e-6


def test_a_session_folds_as_the_reference_does(tmp_path: Path) -> None:
    cut = folded()
    blueprint = Blueprint(Source("folded", "toy", "", {}, pretrained=False), cut, (feeds(13, 9), feeds(4, 2)))
    export_bundle(blueprint, tmp_path / "bundle")
    report = verify(tmp_path / "bundle")
    assert report.passed, report.reports
    with open_session(tmp_path / "bundle") as session:
        for sizes in ((4, 4), (3, 1), (13, 9), (21, 17)):
            given = feeds(*sizes)
            expected = Reference(cut).run(given).values
            assert relative_l2(expected["scores"], session.run(given)["scores"]) < 1e-6
            assert relative_l2(expected["attended"], session.encode(given)["attended"]) < 1e-6


def test_a_repeated_step_carries_its_state(blueprint: Blueprint) -> None:
    seen = [a for a in Reference(blueprint.cut).calls(blueprint.golden[0]) if a.component == "processor_block"]
    assert len(seen) == 2
    assert np.array_equal(seen[0].outputs["latents_out"], seen[1].inputs["latents"])
    assert not np.array_equal(seen[0].inputs["latents"], seen[1].inputs["latents"])


def test_double_precision_is_double_throughout(blueprint: Blueprint) -> None:
    exact = Reference(blueprint.cut, torch.float64)
    single = Reference(blueprint.cut)
    a, b = exact.run(blueprint.golden[0]), single.run(blueprint.golden[0])
    assert a.values["logits"].dtype == np.float64
    assert b.values["logits"].dtype == np.float32
    assert 0 < relative_l2(a.values["logits"], b.values["logits"]) < 1e-6


def test_double_precision_copies_a_shared_module_once() -> None:
    shared = nn.Linear(3, 3)
    x, y = (TensorSpec(name, "float32", ("batch", 3)) for name in "xy")
    components = tuple(Component(name, nn.Sequential(shared), (x,), (y,)) for name in "ab")
    exact = Reference(Cut(components, Pipeline((x,), (y,), ()), Profile("default", {})), torch.float64)
    assert exact._modules["a"][0] is exact._modules["b"][0]
    assert exact._modules["a"][0].weight.dtype == torch.float64
    assert shared.weight.dtype == torch.float32


def test_inputs_left_out_take_their_default_and_others_are_demanded() -> None:
    pipeline = folded().pipeline
    filled = complete(pipeline, feeds(5, 2))
    assert filled["bias"].shape == (2, 5)
    assert not filled["bias"].any()
    with pytest.raises(FeedError, match="lack keys, positions"):
        complete(pipeline, {"query": np.zeros((1, QUERIES, WIDTH), np.float32)})


def test_ids_that_no_table_has_are_refused() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, 2)

        def forward(self, ids: Tensor) -> Tensor:
            return self.table(ids)

    spec, made = TensorSpec("ids", "int64", ("batch",)), TensorSpec("words", "float32", ("batch", 2))
    step = Step("words", {"ids": "ids"}, {"words": "words"}, "encode")
    cut = Cut((Component("words", Words(), (spec,), (made,)),), Pipeline((spec,), (made,), (step,)), Profile("p", {}))
    with pytest.raises(FeedError, match=r"component words: .*got ids of 0 to 9"):
        Reference(cut).run({"ids": np.array([0, 9])})
