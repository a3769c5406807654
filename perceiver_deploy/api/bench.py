"""`bench`: latency of bundles beside each other and beside peers, in one interleaved run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from perceiver_deploy.peers import PEERS, Workload, check_peers
from perceiver_deploy.sources.reference import reference_of
from perceiver_runtime import Session, open_session
from perceiver_runtime.backends import check_threads
from perceiver_runtime.benchmark.latency import sized_feeds
from perceiver_runtime.benchmark.load import LoadMeter, OtherLoad
from perceiver_runtime.benchmark.statistics import Distribution, Ratio, ratio
from perceiver_runtime.benchmark.timing import interleave
from perceiver_runtime.conditions import Conditions, conditions_of, unit_of
from perceiver_runtime.errors import UsageError
from perceiver_runtime.golden import load_golden
from perceiver_runtime.progress import report

TORCH = "torch"


@dataclass(frozen=True)
class BenchmarkReport:
    """Latency of one bundle at one batch size, beside what was timed in the same interleaved run.

    Attributes:
        bundle: Directory of the bundle.
        backend: What ran it.
        precision: Precision of the bundle.
        batch: Rows per call.
        threads: CPU threads.
        session: Milliseconds per call.
        peers: Milliseconds per call of each peer (see `perceiver_deploy.peers.PEERS`).
        speedups: By peer, and by the directory of each other bundle: median over rounds of its time / this one's, with
            the 95% interval.
        others: Load that other programs put on the machine meanwhile; None: not known.
        reason: Why this backend ran.
        conditions: What was measured, and where, with the load before.
    """

    bundle: str
    backend: str
    precision: str
    batch: int
    threads: int
    session: Distribution
    peers: Mapping[str, Distribution]
    speedups: Mapping[str, Ratio]
    others: OtherLoad | None
    reason: str
    conditions: Conditions


def bench(
    bundles: str | Path | Sequence[str | Path],
    *,
    against: Iterable[str] = (TORCH,),
    reference: str | None = None,
    batch: int | Sequence[int] = 1,
    iterations: int = 50,
    duration: float | None = None,
    warmup: int = 5,
    threads: int | None = None,
    backend: str = "auto",
) -> tuple[BenchmarkReport, ...]:
    """Measure the latency of bundles beside each other and beside peers, call by call in turn.

    Args:
        bundles: Directory of a bundle, or of several of one model.
        against: Names of `perceiver_deploy.peers.PEERS`; none: the bundles alone. They run where the bundles do, on the
            processor or the GPU, from arrays on the host to arrays on the host.
        reference: Model of the zoo or checkpoint that the peers' weights come from; None: the bundles' source.
        batch: Rows per call, or several numbers; a golden sample that has fewer rows is repeated.
        iterations: Measured calls of each, at least 2.
        duration: Seconds that the measured calls of one batch size take together, in place of `iterations`; at least 2
            calls of each are made.
        warmup: Calls of each before the measured ones.
        threads: CPU threads of all; None: what the sessions take; peers get the largest of these.
        backend: What runs the bundles; "auto" as `open_session` chooses.

    Returns:
        For each batch size, a report for each bundle in order.

    Raises:
        UsageError: The bundles are not of one model, the reference has other weights, or a number is out of range.
        BundleError: A bundle is damaged.
        UnavailableError: The backend, or a peer, can't run this model on this machine.
    """
    paths = [bundles] if isinstance(bundles, (str, Path)) else list(bundles)
    peers, sizes = tuple(dict.fromkeys(against)), [batch] if isinstance(batch, int) else list(batch)
    check_peers(peers)
    if duration is not None and not duration > 0:
        raise UsageError(f"duration (--duration): expected seconds above 0, got {duration}")
    check_threads(threads)
    if len({Path(path).resolve() for path in paths}) != len(paths):
        raise UsageError("bench: expected different bundles, got one twice; name each once")
    with ExitStack() as opened:
        sessions = [opened.enter_context(open_session(p, backend, threads, check_finite=False)) for p in paths]
        _require_one_model(sessions)
        run = _Run(sessions, peers, reference, Path(opened.enter_context(tempfile.TemporaryDirectory())))
        return tuple(made for size in sizes for made in run.at(size, iterations, duration, warmup))


class _Run:
    """Open sessions of one model, and the peers that run its reference."""

    def __init__(self, sessions: Sequence[Session], peers: Sequence[str], reference: str | None, folder: Path) -> None:
        self._sessions, self._peers, self._folder = sessions, peers, folder
        own = [session.threads for session in sessions if session.threads is not None]
        self._threads = max(own, default=torch.get_num_threads())
        self._model = reference_of(sessions[0].bundle, reference) if peers else None
        units = {unit_of(session.backend) for session in sessions}
        if peers and len(units) > 1:
            raise UsageError(
                "bench: expected bundles that all run on the processor or all on a GPU, as the peers do, got "
                f"{', '.join(session.backend for session in sessions)}; name a --backend, or use --against none"
            )
        self._device = "cuda" if units == {"gpu"} else "cpu"

    def at(self, batch: int, iterations: int, duration: float | None, warmup: int) -> Iterator[BenchmarkReport]:
        """A report for each session at one batch size."""
        feeds = [sized_feeds(s, load_golden(s.bundle)[0].feeds, batch) for s in self._sessions]
        names = [str(session.bundle.path) for session in self._sessions]
        calls: dict[str, Callable[[], object]]
        calls = {n: partial(s.run, given) for n, s, given in zip(names, self._sessions, feeds, strict=True)}
        if self._model is not None:
            torch.set_num_threads(self._threads)
            inputs = {spec.name: feeds[0][spec.name] for spec in self._sessions[0].inputs}
            workload = Workload(self._model, inputs, self._threads, self._folder / str(batch), self._device)
            calls |= {name: PEERS[name].make(workload) for name in self._peers}
        report(f"time {', '.join(calls)} in turn, batch {batch}")
        if duration is not None:
            warm = [sum(each) for each in zip(*interleave(calls, 2, warmup).values(), strict=True)]
            iterations, warmup = max(2, round(duration * 1e3 / min(warm))), 0
        conditions, meter = [conditions_of(session) for session in self._sessions], LoadMeter()
        times = interleave(calls, iterations, warmup)
        others = meter.read()
        for name, session, state in zip(names, self._sessions, conditions, strict=True):
            yield BenchmarkReport(
                bundle=name,
                backend=session.backend,
                precision=session.manifest.precision,
                batch=batch,
                threads=session.threads or self._threads,
                session=Distribution.of(times[name]),
                peers={peer: Distribution.of(times[peer]) for peer in self._peers},
                speedups={other: ratio(times[other], times[name]) for other in times if other != name},
                others=others,
                reason=session.reason,
                conditions=state,
            )


def _require_one_model(sessions: Sequence[Session]) -> None:
    sources = [session.manifest.source for session in sessions]
    if len({source.weights_sha256 for source in sources}) != 1:
        names = ", ".join(source.name for source in sources)
        raise UsageError(f"bench: expected bundles of one model, got {names}; time each model by itself")
