"""`bench`: latency of a bundle beside its PyTorch reference, in one interleaved run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from perceiver_deploy.api.timing import Call, interleave, ratio
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.module import ModuleConfig, own_call
from perceiver_deploy.sources.reference import reference_of
from perceiver_exporters.reference import Reference
from perceiver_runtime import Session, open_session
from perceiver_runtime.backends import check_threads
from perceiver_runtime.golden import load_golden
from perceiver_runtime.measure.latency import Distribution, sized_feeds
from perceiver_runtime.measure.load import LoadMeter, OtherLoad
from perceiver_runtime.progress import report
from perceiver_runtime.tensors import Array

MODALITIES = {"pixel_values": "pixels", "input_ids": "ids"}
"""Inputs, and what a module of several modalities, any of which may be absent, calls them."""


@dataclass(frozen=True)
class BenchmarkReport:
    """Milliseconds per call of the bundle and of torch eager on the same inputs, and their ratio.

    `speedup` is the median over rounds of eager time / bundle time; `low` and `high` bound its 95% interval. `others`
    is the load that other programs put on the machine meanwhile (None: not known); `reason` says why this backend ran.
    """

    bundle: str
    backend: str
    precision: str
    batch: int
    threads: int
    session: Distribution
    eager: Distribution
    speedup: float
    low: float
    high: float
    others: OtherLoad | None
    reason: str = ""


def bench(
    bundle: str | Path,
    *,
    reference: str | None = None,
    batch: int = 1,
    iterations: int = 50,
    warmup: int = 5,
    threads: int | None = None,
    backend: str = "auto",
) -> BenchmarkReport:
    """Measure the latency of a bundle beside PyTorch eager, call by call in turn, on rows of a golden sample.

    Args:
        bundle: Directory of the bundle.
        reference: Model of the zoo or checkpoint that PyTorch's weights come from; None: the bundle's source.
        batch: Rows per call; a golden sample that has fewer is repeated.
        iterations: Measured calls of each, at least 2.
        warmup: Calls of each before the measured ones.
        threads: CPU threads of both; None: what the session takes, and beside a GPU PyTorch's choice.
        backend: What runs the bundle; "auto" as `open_session` chooses.

    Returns:
        Milliseconds per call of both, and the ratio of their medians with its 95% interval.

    Raises:
        UsageError: The reference has other weights than the bundle, or a number is out of range.
        BundleError: The bundle is damaged.
        UnavailableError: The backend is not on this machine.
    """
    check_threads(threads)
    report(f"time {bundle} and torch eager in turn")
    with open_session(bundle, backend, threads, check_finite=False) as session:
        threads = threads or session.threads or torch.get_num_threads()
        torch.set_num_threads(threads)
        feeds = sized_feeds(session, load_golden(session.bundle)[0].feeds, batch)
        model = reference_of(session.bundle, reference)
        return compare(session, model, feeds, iterations, threads, warmup)


def compare(
    session: Session, model: Model, feeds: Mapping[str, Array], iterations: int, threads: int, warmup: int = 5
) -> BenchmarkReport:
    """Time an open session and a module in turn on the same feeds."""
    names = [spec.name for spec in session.inputs]
    eager = eager_call(model, {name: feeds[name] for name in names})
    meter = LoadMeter()
    times = interleave({"eager": eager, "session": lambda: session.run(feeds)}, iterations, warmup)
    speedup = ratio(times["eager"], times["session"])
    return BenchmarkReport(
        bundle=str(session.bundle.path),
        backend=session.backend,
        precision=session.manifest.precision,
        batch=len(feeds[names[0]]),
        threads=threads,
        session=Distribution.of(times["session"]),
        eager=Distribution.of(times["eager"]),
        speedup=speedup.median,
        low=speedup.low,
        high=speedup.high,
        others=meter.read(),
        reason=session.reason,
    )


def eager_call(model: Model, feeds: Mapping[str, Array]) -> Call:
    """The reference module on feeds in the order of the session's inputs, in inference mode."""
    if isinstance(model.config, ModuleConfig):
        return own_call(model.module, model.config, feeds)
    if model.made is not None:
        reference = Reference(model.made.cut)
        return lambda: reference.run(feeds)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in feeds.items()}
    parameters = inspect.signature(model.module.forward).parameters
    named = {MODALITIES[name]: tensor for name, tensor in tensors.items() if MODALITIES.get(name) in parameters}

    def call() -> object:
        with torch.inference_mode():
            return model.module(**named) if named else model.module(*tensors.values())

    return call
