"""`advise`: which precision, backend and threads to use within limits, of candidates that are measured."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from perceiver_deploy.api.advice.candidate import Candidate, Limits, choice, pareto
from perceiver_deploy.api.advice.trials import Trial
from perceiver_deploy.api.export import Source, prepared
from perceiver_deploy.api.options import ExportOptions, ExportSettings, export_options
from perceiver_deploy.checkpoints import LoadOptions
from perceiver_deploy.checkpoints.loaded import DEFAULT
from perceiver_exporters.memory.estimate import fit
from perceiver_exporters.targets.target import TARGETS, Board, Target
from perceiver_runtime.errors import UsageError
from perceiver_runtime.machine import machine
from perceiver_runtime.suggest import did_you_mean

if TYPE_CHECKING:
    from typing_extensions import Unpack

ROUNDS = 20


@dataclass(frozen=True)
class Advice:
    """Candidates, those that no other betters, and the choice.

    Attributes:
        source: What was asked about.
        target: Device family.
        machine: Where latency, accuracy and memory were measured.
        batch: Rows per call.
        limits: Bounds that the choice keeps.
        candidates: All that were tried.
        pareto: Candidates that no other of their device betters in latency, accuracy or memory without being worse in
            another.
        chosen: Of each device the fastest within the limits, if there is one.
        commands: Command lines that make the choices, and time them.
    """

    source: str
    target: str
    machine: str
    batch: int
    limits: Limits
    candidates: tuple[Candidate, ...]
    pareto: tuple[Candidate, ...]
    chosen: tuple[Candidate, ...]
    commands: tuple[str, ...]


def advise(
    source: Source,
    *,
    max_latency: float | None = None,
    max_drop: float | None = None,
    precisions: Sequence[str] = (),
    boards: Sequence[str] = (),
    batch: int = 1,
    rounds: int = ROUNDS,
    keep: str | Path | None = None,
    options: LoadOptions = DEFAULT,
    **settings: Unpack[ExportSettings],
) -> Advice:
    """Export a model at each precision, and measure accuracy, latency and memory of each backend and thread count.

    For targets other than the processor, latency and memory are forecasts for their boards, and marked as such.

    Args:
        source: As for `export`.
        max_latency: Largest median latency of a call in milliseconds; None: no bound.
        max_drop: Largest loss of accuracy in points; needs labelled samples. None: no bound.
        precisions: Precisions to try; none: all of the target.
        boards: Boards of the target to forecast for; none: all of them.
        batch: Rows per call.
        rounds: Measured calls of each setting.
        keep: Directory where the bundles stay; None: they are removed.
        options: As for `export`.
        **settings: As for `export`; `max_memory` is a bound here as well: the largest peak memory in bytes.

    Returns:
        The candidates and the choice.

    Raises:
        UsageError: Limits that nothing can keep, a bound on accuracy without labelled samples, a target or board that
            there is no way to measure or forecast, or what `export` raises.
    """
    chosen = export_options(options, settings)
    limits = Limits(max_latency, max_drop, chosen.max_memory)
    target = _target(chosen.target)
    known = _boards(target, boards)
    for precision in precisions:
        target.require(precision)
    with ExitStack() as opened:
        folder = Path(keep) if keep is not None else Path(opened.enter_context(tempfile.TemporaryDirectory()))
        model, made = prepared(source, replace(chosen, precision="fp32", max_memory=None))
        chunked = chosen.max_memory is not None and any(step.chunk for step in made.cut.pipeline.steps)
        if chunked and chosen.max_memory is not None:
            made = replace(made, cut=fit(made.cut, chosen.max_memory))
        if max_drop is not None and (model.dataset is None or not model.dataset.scored):
            raise UsageError(f"max_drop (--max-drop): {model.name} has no labelled samples; give some (--data)")
        trial = Trial(model, made, target.name, chosen.quantization, folder, rounds, batch)
        bundles = list(trial.export(precisions or target.precisions))
        found = tuple(trial.forecast(bundles, known) if known else trial.measure(bundles))
    devices = [[c for c in found if c.device == name] for name in dict.fromkeys(c.device for c in found)]
    best = tuple(each for same in devices if (each := choice(same, limits)) is not None)
    return Advice(
        source=model.name,
        target=target.name,
        machine=machine(),
        batch=batch,
        limits=limits,
        candidates=found,
        pareto=tuple(each for same in devices for each in pareto(same)),
        chosen=best,
        commands=tuple(dict.fromkeys(c for each in best for c in _commands(source, chosen, each, chunked=chunked))),
    )


def _target(name: str) -> Target:
    if name not in TARGETS:
        raise UsageError(f"target (--target): expected one of {', '.join(TARGETS)}, got {name!r:.40}")
    target = TARGETS[name]
    if target.name != "cpu" and not target.boards:
        raise UsageError(
            f"target (--target): expected cpu, which is measured here, or a target with boards, got {name}"
        )
    return target


def _boards(target: Target, names: Sequence[str]) -> tuple[Board, ...]:
    known = {board.name: board for board in target.boards}
    for name in names:
        if name not in known:
            expected = ", ".join(known) or "none, for the target cpu"
            raise UsageError(f"boards (--board): expected {expected}, got {name!r:.40}{did_you_mean(name, known)}")
    return tuple(known[name] for name in names) or target.boards


def _commands(source: Source, options: ExportOptions, chosen: Candidate, *, chunked: bool) -> tuple[str, ...]:
    name = source if isinstance(source, (str, Path)) else type(source).__name__
    data = ["--data", str(options.data)] if isinstance(options.data, (str, Path)) else []
    memory = ["--max-memory", f"{(options.max_memory or 0) / 1e6:g}MB"] if chunked else []
    export = ["perceiver-export", "export", str(name), "-o", "bundle", "--precision", chosen.precision, *data, *memory]
    if options.target != "cpu":
        export += ["--target", options.target]
        build = ["perceiver-export", "build", "bundle", "--target", options.target]
        return shlex.join(export), shlex.join(build)
    bench = ["perceiver-run", "bench", "bundle", "--backend", chosen.backend]
    return shlex.join(export), shlex.join([*bench, "--threads", str(chosen.threads or 1)])
