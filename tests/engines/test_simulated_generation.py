"""SIMULATION: sequences generated on the backends with a device, the step looped over device buffers."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import tiny_bundles
from engines.simulation.jetson import SimulatedJetson
from onnx import helper

from perceiver_runtime import BundleError, Sampling, load_bundle
from perceiver_runtime.execution import lanes
from perceiver_runtime.execution.opening import open_session
from perceiver_runtime.pipeline import Generation, Pipeline, Step
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec

VOCABULARY, WIDTH, HIDDEN, LENGTH, STOP = 9, 4, 6, 15, 2
RANDOM = np.random.default_rng(1)


def weight(*shape: int) -> Array:
    return RANDOM.standard_normal(shape, dtype=np.float32) * np.float32(1.5)


START, EMBEDDING = weight(WIDTH, HIDDEN), weight(VOCABULARY, HIDDEN)
TURN, OUTPUT = weight(HIDDEN, HIDDEN), weight(HIDDEN, VOCABULARY)


def advance(id: Array, h: Array) -> dict[str, Array]:
    after = np.tanh(h @ TURN + EMBEDDING[id.astype(np.int64) % VOCABULARY])
    logits = after @ OUTPUT
    return {"log_probs": logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True)), "h_next": after}


def speaker() -> tiny_bundles.Model:
    x, state = TensorSpec("x", "float32", ("batch", WIDTH)), TensorSpec("h", "float32", ("batch", HIDDEN))
    token, scores = TensorSpec("id", "int64", ("batch",)), TensorSpec("log_probs", "float32", ("batch", VOCABULARY))
    step = (
        helper.make_node("Gather", ["embedding", "id"], ["known"]),
        helper.make_node("MatMul", ["h", "turn"], ["turned"]),
        helper.make_node("Add", ["turned", "known"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["h_next"]),
        helper.make_node("MatMul", ["h_next", "output"], ["logits"]),
        helper.make_node("LogSoftmax", ["logits"], ["log_probs"], axis=-1),
    )
    weights = {"embedding": EMBEDDING, "turn": TURN, "output": OUTPUT}
    after = TensorSpec("h_next", "float32", ("batch", HIDDEN))
    begin = (helper.make_node("MatMul", ["x", "start"], ["h"]),)
    pipeline = Pipeline(
        inputs=(x, TensorSpec("token", "int64", ("batch",))),
        outputs=(TensorSpec("scores", "float32", ("batch", VOCABULARY)),),
        steps=(
            Step("begin", {"x": "x"}, {"h": "state"}, "encode"),
            Step(
                "step",
                {"id": "token", "h": "state"},
                {"log_probs": "scores", "h_next": "state_next"},
                "decode",
                carry={"h_next": "h"},
            ),
        ),
        defaults={"token": 1.0},
        generations=(Generation("text", "step", "token", "scores", start=1, stop=STOP, length=LENGTH),),
    )
    parts = (
        tiny_bundles.Part("begin", (x,), (state,), begin, {"start": START}, lambda x: {"h": x @ START}),
        tiny_bundles.Part("step", (token, state), (scores, after), step, weights, advance),
    )
    return tiny_bundles.Model(parts, pipeline, Profile("default", {"batch": Range(1, 1, 16)}))


@pytest.fixture
def jetson(either: SimulatedJetson) -> SimulatedJetson:
    """Each test runs on both backends."""
    return either


@pytest.fixture
def model() -> tiny_bundles.Model:
    return speaker()


@pytest.fixture
def path(tmp_path: Path, model: tiny_bundles.Model) -> Path:
    given = {"x": np.ones((1, WIDTH), np.float32)}
    return tiny_bundles.write(tmp_path / "bundle", model, given)


def inputs(batch: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(1).standard_normal((batch, WIDTH), dtype=np.float32)}


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.8, top_k=4, seed=3)])
def test_generates_what_onnx_runtime_generates(built: Path, jetson: SimulatedJetson, sampling: Sampling) -> None:
    with jetson.open(built) as session, open_session(built, "onnxruntime") as reference:
        made, expected = (opened.generate(inputs(12), sampling=sampling) for opened in (session, reference))
    assert len(set(expected.lengths.tolist())) > 2
    np.testing.assert_array_equal(made.ids, expected.ids)
    np.testing.assert_allclose(made.log_probs, expected.log_probs, rtol=1e-5, atol=1e-6)


def test_a_batch_of_different_lengths_equals_one_by_one(built: Path, jetson: SimulatedJetson) -> None:
    given = inputs(12)
    with jetson.open(built) as session:
        together = session.generate(given)
        for row in range(12):
            alone = session.generate({"x": given["x"][row : row + 1]})
            length = int(alone.lengths[0])
            assert together.lengths[row] == length
            np.testing.assert_array_equal(together.ids[row, :length], alone.ids[0, :length])


def test_all_memory_of_a_generation_goes_back(built: Path, jetson: SimulatedJetson) -> None:
    with jetson.open(built) as session:
        session.generate(inputs(3))
        gc.collect()
        live = jetson.cuda.heap.live
        for _ in range(5):
            session.generate(inputs(3))
        gc.collect()
        assert jetson.cuda.heap.live == live


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"component": "begin"}, "expected one decode step without repeat or chunk that runs begin"),
        ({"token": "x"}, r"its step reads no token x: int64\[batch\]"),
        ({"scores": "state"}, r"its step makes no scores state: float\[batch, vocabulary\]"),
        ({"start": 5}, "expected a length of at least 1, and 5 as its token's default"),
        ({"length": 0}, "expected a length of at least 1"),
    ],
)
def test_a_generation_that_does_not_fit_its_step_is_refused(
    path: Path, changes: dict[str, object], message: str
) -> None:
    tiny_bundles.change(path, lambda manifest: manifest["pipeline"]["generations"][0].update(changes))
    with pytest.raises(BundleError, match=f"generation text: {message}"):
        load_bundle(path)


def test_steps_of_few_numbers_of_rows_are_kept(
    built: Path, jetson: SimulatedJetson, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory does not grow with every number of rows that was ever generated."""
    monkeypatch.setattr(lanes, "MAX_IDLE_SIZES", 2)

    def used(*batches: int) -> int:
        with jetson.open(built) as session:
            expected = [session.generate(inputs(batch)).ids.tolist() for batch in batches]
            assert [session.generate(inputs(batch)).ids.tolist() for batch in batches] == expected
            gc.collect()
            return jetson.cuda.heap.in_use

    few = used(3, 4)
    gc.collect()
    assert used(1, 2, 3, 4) <= few
