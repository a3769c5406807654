"""Autoregressive generation: the decode step is called once per id, and its state stays in device buffers.

Two sets of state buffers alternate: one is read while the other is written. Between two positions only ids are uploaded
and log-probabilities downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from perceiver_runtime.backends.backend import Buffer, Device, Executable
from perceiver_runtime.errors import CheckError, UsageError
from perceiver_runtime.pipeline import Generation, Step
from perceiver_runtime.tensors import Array, is_whole

Ids = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float32]
Choose = Callable[[Scores], Ids]


@dataclass(frozen=True)
class Sampling:
    """How the next id is chosen.

    Attributes:
        temperature: 0 takes the most likely id; larger values divide the log-probabilities before sampling.
        top_k: Sample among this many of the most likely ids; 0 samples among all.
        seed: Seed of the random numbers. Row i of a batch has its own generator, seeded by (seed, i), so that it does
            not depend on where other rows end.
    """

    temperature: float = 0.0
    top_k: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        whole = all(is_whole(number) and number >= 0 for number in (self.top_k, self.seed))
        if not whole or not isinstance(self.temperature, (int, float)) or not 0.0 <= self.temperature < np.inf:
            raise UsageError(
                f"sampling: expected a temperature, and integers top_k and seed, of at least 0, got {self}"
            )


GREEDY = Sampling()


@dataclass(frozen=True)
class Generated:
    """Generated sequences.

    Attributes:
        ids: (B, T), filled with the stop id after the end of a sequence.
        lengths: (B,), ids before the stop id.
        log_probs: (B, T), the model's log-probability of each id before temperature is applied; 0 after the end.
    """

    ids: Ids
    lengths: Ids
    log_probs: Scores


def chooser(sampling: Sampling, batch: int) -> Choose:
    """A function from log-probabilities (B, vocabulary) to ids (B,). It samples by adding Gumbel noise to them."""
    if sampling.temperature == 0.0:
        return lambda scores: scores.argmax(axis=1)
    generators = [np.random.default_rng((sampling.seed, row)) for row in range(batch)]

    def choose(scores: Scores) -> Ids:
        noise = np.stack([generator.gumbel(size=scores.shape[1]) for generator in generators])
        ids: Ids = (_keep(scores, sampling.top_k) / sampling.temperature + noise).argmax(axis=1)
        return ids

    return choose


def _keep(scores: Scores, top_k: int) -> npt.NDArray[np.float64]:
    """Set all but the `top_k` largest of each row to minus infinity; of equal ones the first is kept."""
    wide = scores.astype(np.float64)
    if not 0 < top_k < scores.shape[1]:
        return wide
    dropped = np.argsort(-wide, axis=1, kind="stable")[:, top_k:]
    np.put_along_axis(wide, dropped, -np.inf, axis=1)
    return wide


class BoundStep:
    """The step of a generation on device buffers, for one batch. Each call of `advance` computes one position."""

    def __init__(self, device: Device, executable: Executable, step: Step, token: str, values: Mapping[str, Array]):
        """Bind the step, and `begin`."""
        self._device, self._step = device, step
        self._token = next(graph for graph, value in step.inputs.items() if value == token)
        batch = len(next(iter(values.values())))
        sizes = {symbol: batch for spec in executable.inputs for symbol in spec.symbols}
        given = {spec.name: device.allocate(spec.resolve(sizes), spec.dtype) for spec in executable.inputs}
        made = {spec.name: device.allocate(spec.resolve(sizes), spec.dtype) for spec in executable.outputs}
        back = {**given, **{graph: made[output] for output, graph in step.carry.items()}}
        forth = {**made, **{output: given[graph] for output, graph in step.carry.items()}}
        self._tokens: Buffer = given[self._token]
        self._given, self._made = given, made
        self._shapes = {spec.name: (spec.resolve(sizes), spec.dtype) for spec in executable.outputs}
        self._runs = (executable.bind(given, made), executable.bind(back, forth))
        self.begin(values)

    def begin(self, values: Mapping[str, Array]) -> None:
        """Begin a batch of the same size. `values` are those of all inputs of the step but the token."""
        self._position = 0
        for graph, value in self._step.inputs.items():
            if graph != self._token:
                self._device.upload(values[value], self._given[graph])

    def advance(self, tokens: Ids, output: str) -> Array:
        """Feed ids (B,) and return one graph output that is not carried."""
        self._device.upload(tokens, self._tokens)
        self._runs[self._position % 2]()
        self._position += 1
        shape, dtype = self._shapes[output]
        scores: Array = np.empty(shape, dtype)
        self._device.download(self._made[output], scores)
        return scores


def generate(
    loop: BoundStep, generation: Generation, output: str, batch: int, sampling: Sampling, length: int
) -> Generated:
    """Call the step until every sequence has ended or has `length` ids; `output` is the graph output with the scores.

    Raises CheckError if the largest score of an unfinished sequence is NaN or infinite.
    """
    choose = chooser(sampling, batch)
    tokens: Ids = np.full(batch, generation.start, np.int64)
    ended = np.zeros(batch, bool)
    ids: list[Ids] = []
    log_probs: list[Scores] = []
    while len(ids) < length and not ended.all():
        scores = loop.advance(tokens, output).astype(np.float32, copy=False)
        _check_scores(scores, ended, len(ids), generation.name)
        chosen = choose(scores)
        tokens = np.where(ended, generation.stop, chosen)
        log_probs.append(np.where(ended, np.float32(0.0), scores[np.arange(batch), chosen]))
        ended = ended | (tokens == generation.stop)
        ids.append(tokens)
    table = np.stack(ids, axis=1)
    return Generated(table, (table != generation.stop).sum(axis=1), np.stack(log_probs, axis=1))


def _check_scores(scores: Scores, ended: npt.NDArray[np.bool_], position: int, name: str) -> None:
    """Refuse scores without a finite maximum. Minus infinity excludes an id."""
    lost = ~(np.isfinite(scores.max(axis=1)) | ended)
    if lost.any():
        raise CheckError(
            f"{name}: expected finite log-probabilities, got {scores.max(axis=1)[lost][0]} at position {position} of "
            f"sequence {int(lost.argmax())}; check the feeds for NaN, and the bundle with `verify`"
        )
