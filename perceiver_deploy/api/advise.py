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
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.errors import UsageError
from perceiver_runtime.machine import machine

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
        pareto: Candidates that no other betters in latency, accuracy or memory without being worse in another.
        chosen: The fastest within the limits; None: there is none.
        commands: Command lines that make the choice and time it.
    """

    source: str
    target: str
    machine: str
    batch: int
    limits: Limits
    candidates: tuple[Candidate, ...]
    pareto: tuple[Candidate, ...]
    chosen: Candidate | None
    commands: tuple[str, ...]


def advise(
    source: Source,
    *,
    max_latency: float | None = None,
    max_drop: float | None = None,
    precisions: Sequence[str] = (),
    batch: int = 1,
    rounds: int = ROUNDS,
    keep: str | Path | None = None,
    options: LoadOptions = DEFAULT,
    **settings: Unpack[ExportSettings],
) -> Advice:
    """Export a model at each precision, and measure accuracy, latency and memory of each backend and thread count.

    Args:
        source: As for `export`.
        max_latency: Largest median latency of a call in milliseconds; None: no bound.
        max_drop: Largest loss of accuracy in points; needs labelled samples. None: no bound.
        precisions: Precisions to try; none: all of the target.
        batch: Rows per call.
        rounds: Measured calls of each setting.
        keep: Directory where the bundles stay; None: they are removed.
        options: As for `export`.
        **settings: As for `export`; `max_memory` is a bound here as well: the largest peak memory in bytes.

    Returns:
        The candidates and the choice.

    Raises:
        UsageError: Limits that nothing can keep, a bound on accuracy without labelled samples, a target that this
            machine can't measure, or what `export` raises.
    """
    chosen = export_options(options, settings)
    limits = Limits(max_latency, max_drop, chosen.max_memory)
    target = TARGETS.get(chosen.target)
    if target is None or target.name != "cpu":
        raise UsageError(f"target (--target): expected cpu, which is measured here, got {chosen.target}")
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
        found = tuple(trial.measure(bundles))
    best = choice(found, limits)
    return Advice(
        source=model.name,
        target=target.name,
        machine=machine(),
        batch=batch,
        limits=limits,
        candidates=found,
        pareto=pareto(found),
        chosen=best,
        commands=_commands(source, chosen, best, chunked=chunked) if best is not None else (),
    )


def _commands(source: Source, options: ExportOptions, chosen: Candidate, *, chunked: bool) -> tuple[str, ...]:
    name = source if isinstance(source, (str, Path)) else type(source).__name__
    data = ["--data", str(options.data)] if isinstance(options.data, (str, Path)) else []
    memory = ["--max-memory", f"{(options.max_memory or 0) / 1e6:g}MB"] if chunked else []
    export = ["perceiver-export", "export", str(name), "-o", "bundle", "--precision", chosen.precision, *data, *memory]
    bench = ["perceiver-run", "bench", "bundle", "--backend", chosen.backend]
    threads = ["--threads", str(chosen.threads)] if chosen.threads is not None else []
    return shlex.join(export), shlex.join([*bench, *threads])
