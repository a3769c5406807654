"""Sequences, id by id: the decode step of a generation, looped with its state in device buffers.

Two sets of state buffers take turns: one is read while the other is written. Only ids go up and log-probabilities
come down between two positions.
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
    """How the next id is chosen: the likeliest one at temperature 0, else by chance among the `top_k` likeliest.

    Log-probabilities are divided by `temperature`; `top_k` 0 keeps all ids. Row i of a batch draws from a generator
    of its own, seeded by (`seed`, i): what one row draws does not depend on where another ends.
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
    """Ids (B, T) with the stop id from where a sequence ended, lengths (B,) before it, log-probabilities (B, T).

    A log-probability is the model's own, whatever the temperature; it is 0 after a sequence's end.
    """

    ids: Ids
    lengths: Ids
    log_probs: Scores


def chooser(sampling: Sampling, batch: int) -> Choose:
    """From log-probabilities (B, vocabulary) to ids (B,). Sampling adds Gumbel noise and takes the largest."""
    if sampling.temperature == 0.0:
        return lambda scores: scores.argmax(axis=1)
    generators = [np.random.default_rng((sampling.seed, row)) for row in range(batch)]

    def choose(scores: Scores) -> Ids:
        noise = np.stack([generator.gumbel(size=scores.shape[1]) for generator in generators])
        ids: Ids = (_keep(scores, sampling.top_k) / sampling.temperature + noise).argmax(axis=1)
        return ids

    return choose


def _keep(scores: Scores, top_k: int) -> npt.NDArray[np.float64]:
    """The `top_k` largest of each row as they are, the others at minus infinity; of equal ones the first."""
    wide = scores.astype(np.float64)
    if not 0 < top_k < scores.shape[1]:
        return wide
    dropped = np.argsort(-wide, axis=1, kind="stable")[:, top_k:]
    np.put_along_axis(wide, dropped, -np.inf, axis=1)
    return wide


class BoundStep:
    """The step of a generation bound to buffers, for one batch; `advance` takes it one position further."""

    def __init__(self, device: Device, executable: Executable, step: Step, token: str, values: Mapping[str, Array]):
        """`values` are the step's initial values; of its inputs all but the one that reads `token`."""
        self._device = device
        self._token = next(graph for graph, value in step.inputs.items() if value == token)
        batch = len(next(iter(values.values())))
        sizes = {symbol: batch for spec in executable.inputs for symbol in spec.symbols}
        given = {spec.name: device.allocate(spec.resolve(sizes), spec.dtype) for spec in executable.inputs}
        for graph, value in step.inputs.items():
            if graph != self._token:
                device.upload(values[value], given[graph])
        made = {spec.name: device.allocate(spec.resolve(sizes), spec.dtype) for spec in executable.outputs}
        back = {**given, **{graph: made[output] for output, graph in step.carry.items()}}
        forth = {**made, **{output: given[graph] for output, graph in step.carry.items()}}
        self._tokens: Buffer = given[self._token]
        self._made = made
        self._shapes = {spec.name: (spec.resolve(sizes), spec.dtype) for spec in executable.outputs}
        self._runs = (executable.bind(given, made), executable.bind(back, forth))
        self._position = 0

    def advance(self, tokens: Ids, output: str) -> Array:
        """Read ids (B,) and return a graph output that is not carried."""
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
    """Run the loop until every sequence has ended or has `length` ids; `output` is the graph output of the scores.

    Raises CheckError if the scores of a sequence that goes on are NaN, or if none or an infinite one is the largest.
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
    """Minus infinity excludes an id; NaN, or nothing else, is no distribution to choose from."""
    lost = ~(np.isfinite(scores.max(axis=1)) | ended)
    if lost.any():
        raise CheckError(
            f"{name}: expected finite log-probabilities, got {scores.max(axis=1)[lost][0]} at position {position} of "
            f"sequence {int(lost.argmax())}; check the feeds for NaN, and the bundle with `verify`"
        )
