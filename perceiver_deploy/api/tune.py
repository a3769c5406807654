"""`tune`: measure what runs a bundle fastest on this machine, and record it beside the bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from perceiver_runtime import Session, UnavailableError, open_session, verify
from perceiver_runtime.backends import PROCESSOR_BACKENDS
from perceiver_runtime.benchmark.latency import sized_feeds
from perceiver_runtime.benchmark.statistics import ratio
from perceiver_runtime.benchmark.timing import interleave
from perceiver_runtime.errors import INSTALL_ONNXRUNTIME
from perceiver_runtime.format.ranges import batch_within
from perceiver_runtime.format.tuning import Measured, Tuning, write_tuning
from perceiver_runtime.golden import load_golden
from perceiver_runtime.machine import usable_cores
from perceiver_runtime.progress import report

BACKENDS = ("onnxruntime", "openvino", "openvino-bf16", "onnxruntime-cuda")
NARROWER = ("openvino-bf16", "onnxruntime-cuda")
"""Backends that compute in another precision than the bundle's, if they have no kernel for it: measured only where the
bundle's tolerances allow it."""
Setting = tuple[str, int]


def tune(bundle: str | Path, *, iterations: int = 15, warmup: int = 2) -> Tuning:
    """Measure which backend, with 1, 2, 4, ... threads, runs batch 1 of a golden sample fastest; record it.

    The record is written beside the bundle, where `open_session(backend="auto")` reads it on machines of this kind.
    Every setting computes in the bundle's own precision, or within its tolerances on the golden samples.

    Args:
        bundle: Directory of the bundle.
        iterations: Measured calls of each setting, at least 2.
        warmup: Calls of each setting before the measured ones.

    Returns:
        The settings, fastest first.

    Raises:
        BundleError: The bundle is damaged.
        UnavailableError: No backend is on this machine, or the record can't be written.
    """
    path = Path(bundle)
    with ExitStack() as stack:
        sessions = {setting: stack.enter_context(s) for name in BACKENDS for setting, s in _opened(path, name)}
        if not sessions:
            raise UnavailableError(f"{path}: none of {', '.join(BACKENDS)} can run it here; {INSTALL_ONNXRUNTIME}")
        session = next(iter(sessions.values()))
        row = batch_within(session.manifest.profiles, 1)
        feeds = sized_feeds(session, load_golden(session.bundle)[0].feeds, row)
        report(f"time {', '.join(f'{name} x{threads}' for name, threads in sessions)}: {iterations} iterations in turn")
        times = interleave({setting: partial(s.run, feeds) for setting, s in sessions.items()}, iterations, warmup)
        versions = {setting: session.versions for setting, session in sessions.items()}
    return write_tuning(path, rank(times, versions))


def _opened(path: Path, name: str) -> Iterator[tuple[Setting, Session]]:
    """Sessions on a backend, or none, with the reason as progress."""
    cores = usable_cores()
    for index, threads in enumerate(thread_counts(cores) if name in PROCESSOR_BACKENDS else (cores,)):
        session = open_if_available(path, name, threads)
        if session is None or (index == 0 and not _is_allowed(session, name)):
            return
        yield (name, threads), session


def thread_counts(cores: int) -> tuple[int, ...]:
    """Powers of two up to the cores, and the cores."""
    powers = [1 << n for n in range(cores.bit_length()) if 1 << n < cores]
    return (*powers, cores)


def rank(
    times: Mapping[Setting, tuple[float, ...]], versions: Mapping[Setting, Mapping[str, str]]
) -> tuple[Measured, ...]:
    """Settings by their median, fastest first, each with its ratio to the fastest."""
    order = sorted(times, key=lambda setting: float(np.median(times[setting])))
    best = times[order[0]]
    ratios = {setting: ratio(times[setting], best) for setting in order}
    return tuple(
        Measured(*setting, versions[setting], float(np.median(times[setting])), r.median, r.low, r.high)
        for setting, r in ratios.items()
    )


def open_if_available(path: Path, name: str, threads: int) -> Session | None:
    """A session for measurements, or None, with the reason as progress, where the backend can't run the bundle here."""
    try:
        return open_session(path, name, threads, check_finite=False)
    except UnavailableError as error:
        report(f"not measured: {error}")
        return None


def _is_allowed(session: Session, name: str) -> bool:
    """Whether the backend's answers are within the bundle's tolerances; if not, the reason is progress."""
    if name not in NARROWER or verify(session).passed:
        return True
    session.close()
    report(f"not measured: backend {name}: the bundle's tolerances do not allow its precision")
    return False
