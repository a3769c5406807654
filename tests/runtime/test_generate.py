"""Generation: the loop, greedy choice, sampling, ends, against NumPy, on a step that NumPy computes itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from perceiver_runtime.backends.host import HostMemory
from perceiver_runtime.errors import CheckError, UsageError
from perceiver_runtime.execution.generate import GREEDY, BoundStep, Generated, Sampling, chooser, generate
from perceiver_runtime.pipeline import Generation, Step
from perceiver_runtime.tensors import Array, TensorSpec

VOCABULARY, HIDDEN, LENGTH, STOP = 11, 6, 20, 2
GENERATION = Generation("text", "step", "token", "scores", start=1, stop=STOP, length=LENGTH)
STEP = Step("step", {"id": "token", "h": "state"}, {"log_probs": "scores"}, "decode", carry={"h_next": "h"})
RANDOM = np.random.default_rng(3)
EMBEDDING = RANDOM.standard_normal((VOCABULARY, HIDDEN)).astype(np.float32)
OUTPUT = RANDOM.standard_normal((HIDDEN, VOCABULARY)).astype(np.float32)


def advance(token: Array, h: Array) -> tuple[Array, Array]:
    after = np.tanh(1.7 * h + EMBEDDING[token])
    logits = after @ OUTPUT
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)), after


class StepOfNumpy:
    inputs = (TensorSpec("id", "int64", ("n",)), TensorSpec("h", "float32", ("n", HIDDEN)))
    outputs = (TensorSpec("log_probs", "float32", ("n", VOCABULARY)), TensorSpec("h_next", "float32", ("n", HIDDEN)))

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Callable[[], None]:
        def call() -> None:
            outputs["log_probs"][:], outputs["h_next"][:] = advance(inputs["id"], inputs["h"])

        return call


def run(state: Array, sampling: Sampling = GREEDY, length: int = LENGTH) -> Generated:
    loop = BoundStep(HostMemory(), StepOfNumpy(), STEP, "token", {"state": state})
    return generate(loop, GENERATION, "log_probs", len(state), sampling, length)


def states(batch: int) -> Array:
    return np.random.default_rng(0).standard_normal((batch, HIDDEN)).astype(np.float32) * 2


def by_hand(state: Array) -> list[int]:
    h, token, ids = state[None], np.array([1]), []
    while len(ids) < LENGTH:
        scores, h = advance(token, h)
        token = scores.argmax(axis=1)
        if token[0] == STOP:
            return ids
        ids.append(int(token[0]))
    return ids


def test_greedy_batch_equals_each_sequence_by_hand() -> None:
    batch = states(24)
    made = run(batch)
    expected = [by_hand(state) for state in batch]
    assert len({len(ids) for ids in expected}) > 3
    assert [row[:n].tolist() for row, n in zip(made.ids, made.lengths, strict=True)] == expected
    for row, scores, n in zip(made.ids, made.log_probs, made.lengths, strict=True):
        assert (row[n:] == STOP).all()
        assert (scores[n + 1 :] == 0).all()
        assert (scores[:n] < 0).all()


def test_a_row_does_not_depend_on_the_others() -> None:
    batch = states(8)
    for sampling in (GREEDY, Sampling(temperature=0.8, seed=5)):
        together, alone = run(batch, sampling), run(batch[:1], sampling)
        n = alone.ids.shape[1]
        assert (together.ids[0, :n] == alone.ids[0]).all()
        assert together.lengths[0] == alone.lengths[0]


def test_seed_fixes_the_sample_and_length_bounds_it() -> None:
    batch = states(16)
    first, again, other = (run(batch, Sampling(1.0, seed=seed)) for seed in (1, 1, 2))
    assert (first.ids == again.ids).all()
    assert first.ids.shape != other.ids.shape or (first.ids != other.ids).any()
    assert run(batch, length=3).ids.shape == (16, 3)


def test_samples_follow_the_tempered_distribution_of_the_top_k() -> None:
    logits = np.log(np.array([[0.1, 0.4, 0.2, 0.3]], np.float32))
    choose = chooser(Sampling(temperature=0.5, top_k=3, seed=9), 1)
    counts = np.bincount(np.concatenate([choose(logits) for _ in range(20000)]), minlength=4) / 20000
    weights = np.array([0.0, 0.16, 0.04, 0.09])
    assert counts == pytest.approx(weights / weights.sum(), abs=0.015)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(1.0), Sampling(1.0, top_k=3)], ids=["greedy", "all", "top 3"])
def test_scores_that_are_not_finite_are_an_error(sampling: Sampling) -> None:
    batch = states(3)
    batch[1, 2] = np.nan
    with pytest.raises(CheckError, match=r"text: expected finite .* got nan at position 0 of sequence 1"):
        run(batch, sampling)


@pytest.mark.parametrize("wrong", [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": -1}, {"seed": -1}])
def test_refuses_senseless_sampling(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="at least 0"):
        Sampling(**wrong)  # type: ignore[arg-type]
