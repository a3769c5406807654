"""`report`: one page about bundles: how fast, how accurate, on which device, and how each figure is repeated."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import torch

from perceiver_deploy.api.alone import read_measured
from perceiver_deploy.api.reporting.collect import Collector, ReportOptions
from perceiver_deploy.api.reporting.data import ReportData
from perceiver_deploy.api.reporting.environment import environment, runs_of
from perceiver_deploy.api.reporting.page import write_page
from perceiver_deploy.api.reporting.summary import device_rows, summary_rows
from perceiver_runtime import __version__
from perceiver_runtime.backends import check_threads
from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.outputs import check_file
from perceiver_runtime.machine import machine


def report(
    bundles: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    backends: Sequence[str] = ("auto",),
    batch: int | Sequence[int] = 1,
    iterations: int = 50,
    warmup: int = 5,
    threads: int | None = None,
    reference: str | None = None,
    with_reference: bool = True,
    data: str | None = None,
    samples: int | None = None,
    measured: Sequence[str | Path] = (),
) -> ReportData:
    """Verify, evaluate and time bundles of one or several models, and write one page about them.

    Args:
        bundles: Directory of the bundle, or of several.
        out: The HTML file; None writes none.
        backends: Backends that each bundle is measured on.
        batch: Rows per run, or several numbers.
        iterations: Measured runs of each, at least 2.
        warmup: Runs of each before the measured ones.
        threads: CPU threads; None leaves the choice to the session.
        reference: Model or checkpoint with the bundles' weights; None: their source.
        with_reference: Whether the reference is run; without it there are no accuracies, error curves and speed-ups.
        data: Labelled samples, as `evaluate` takes them; None: those of the export.
        samples: Number of samples of other data than the export's; None: all.
        measured: Files with the output of `perceiver-run bench --json` on devices; each becomes a row of its own.

    Returns:
        What the page shows. `failures` are the checks that failed: parity, or a bundle that can't be opened. What
        can't be measured is a `NotMeasured` with the reason.

    Raises:
        UsageError: No bundle is named, a directory is not there, a number is out of range, or `out` can't be a file.
        BundleError: A file of `measured` holds something else.
        UnavailableError: `out` can't be written.
    """
    paths = [Path(each) for each in ([bundles] if isinstance(bundles, (str, Path)) else bundles)]
    options = ReportOptions(
        tuple(backends),
        (batch,) if isinstance(batch, int) else tuple(batch),
        iterations,
        warmup,
        threads,
        reference,
        with_reference,
        data,
        samples,
    )
    _check(paths, options)
    if out is not None:
        check_file(Path(out))
    files = {name: read_measured(path) for name, path in names([Path(each) for each in measured]).items()}
    named = names(paths)
    collector = Collector(options)
    models = collector.models(named)
    made = ReportData(
        command=_command("report", named, options, files),
        date=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        summary=(
            *summary_rows(models, collector.damaged, machine()),
            *(row for reports in files.values() for row in device_rows(reports)),
        ),
        models=tuple(replace(m, commands=_commands([b.name for b in m.bundles], options)) for m in models),
        damaged=tuple(collector.damaged),
        devices=files,
        environment={
            "this machine": environment(runs_of(models), {"perceiver-deploy": __version__, "torch": torch.__version__}),
            **{name: environment(reports, {}) for name, reports in files.items()},
        },
        failures=tuple(dict.fromkeys(collector.failures)),
    )
    if out is not None:
        write_page(made, Path(out))
    return made


def names(paths: Sequence[Path]) -> dict[str, Path]:
    """Each path by the shortest end of it that tells it from the others; a path that is given twice counts once."""
    absolute = {path.resolve(): path for path in paths}
    found = {}
    for place, path in absolute.items():
        depth = next(
            n
            for n in range(1, len(place.parts) + 1)
            if sum(other.parts[-n:] == place.parts[-n:] for other in absolute) == 1
        )
        found["/".join(place.parts[-depth:]).lstrip("/")] = path
    return found


def _check(paths: Sequence[Path], options: ReportOptions) -> None:
    if not (paths and options.backends and options.batches):
        raise UsageError("report: expected at least one bundle, backend and batch size, got none")
    if absent := [str(path) for path in paths if not path.is_dir()]:
        raise UsageError(f"report: expected directories of bundles, got {', '.join(absent)}; check the path")
    if min(options.batches) < 1 or options.iterations < 2 or options.warmup < 0:
        raise UsageError(
            "batch (--batch), iterations (--iterations), warmup (--warmup): expected at least 1, 2 and 0, got "
            f"{min(options.batches)}, {options.iterations}, {options.warmup}"
        )
    check_threads(options.threads)


def _commands(bundles: Sequence[str], options: ReportOptions) -> Mapping[str, str]:
    """For each section of a model the command lines that repeat it."""
    timed = replace(options, with_reference=True, data=None, samples=None)
    plain = ReportOptions(reference=options.reference)
    scored = replace(plain, data=options.data, samples=options.samples)
    each = {"card": ("inspect", ReportOptions()), "parity": ("verify", ReportOptions()), "growth": ("growth", plain)}
    return {
        **{section: "\n".join(_command(c, [b], o) for b in bundles) for section, (c, o) in each.items()},
        "forecast": "\n".join(f"{_command('inspect', [b], ReportOptions())} --forecast" for b in bundles),
        "size": "\n".join(_alone(b, backend, options) for b in bundles for backend in options.backends),
        "roofline": _command("report", bundles, options),
        "accuracy": _command("evaluate", bundles, scored) + " --per-class",
        "latency": "\n".join(_command("bench", bundles, replace(timed, backends=(b,))) for b in options.backends),
    }


def _alone(bundle: str, backend: str, options: ReportOptions) -> str:
    """What `api.alone` runs."""
    words = ["perceiver-run", "bench", bundle, "--iterations", str(options.iterations), "--warmup", str(options.warmup)]
    words += [] if backend == "auto" else ["--backend", backend]
    words += [] if options.threads is None else ["--threads", str(options.threads)]
    return shlex.join(words)


def _command(command: str, bundles: Iterable[str], options: ReportOptions, files: Iterable[str] = ()) -> str:
    """A command line with the options that are not at their defaults."""
    given: list[str] = []
    default = ReportOptions()
    flags = {"iterations": "--iterations", "warmup": "--warmup", "threads": "--threads"}
    flags |= {"reference": "--reference", "data": "--data", "samples": "--samples"}
    for name, flag in flags.items():
        value = getattr(options, name)
        if value != getattr(default, name):
            given += [flag, str(value)]
    given += ["--batch", ",".join(map(str, options.batches))] if options.batches != default.batches else []
    given += [word for b in options.backends if options.backends != default.backends for word in ("--backend", b)]
    given += [] if options.with_reference else ["--no-reference"]
    given += [word for file in files for word in ("--bench", file)]
    return shlex.join(("perceiver-export", command, *bundles, *given))
