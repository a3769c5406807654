"""Threads of a small model: pools per component or shared, spinning or not, and concurrent callers.

    python benchmarks/threads.py DIRECTORY [--name fashion-perceiver] [--rounds 15]
    python benchmarks/threads.py DIRECTORY --limit       one thread against all cores, by the size of the model

The second determines `ONE_THREAD_FLOPS` of `perceiver_runtime.execution.choice` and writes threads-limit.json. Every
process has one kind of pool, because ONNX Runtime fixes it with the first session. Milliseconds are wall time / runs,
over all callers. Writes benchmarks/results/threads.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from record import bundles, write

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.patches import PatchClassifierConfig
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import resolve
from perceiver_runtime import Session, load_bundle, open_session
from perceiver_runtime.backends import open_backend
from perceiver_runtime.benchmark.latency import sized_feeds
from perceiver_runtime.benchmark.statistics import Ratio, ratio
from perceiver_runtime.benchmark.timing import interleave
from perceiver_runtime.golden import load_golden
from perceiver_runtime.machine import physical_cores
from perceiver_runtime.tensors import Array

import onnxruntime as ort

RUNS = 60
CORES = physical_cores()
CALLERS = (1, 2, 4)
SETTINGS = {
    "1 thread": (1, "pool per component", "0"),
    "2 threads": (2, "pool per component", "0"),
    "2 threads, spinning": (2, "pool per component", "1"),
    "2 threads, one shared pool": (2, "shared pool", "0"),
}


@dataclass(frozen=True)
class Row:
    """Median milliseconds per run of a setting with so many callers; the ratio is one caller's time / this."""

    setting: str
    callers: int
    milliseconds: float
    ratio: Ratio


def opened(bundle: Path, setting: str) -> Session:
    threads, pool, spin = SETTINGS[setting]
    backend = open_backend("onnxruntime", threads)
    backend.concurrency = max(CALLERS)
    original = backend._options  # type: ignore[attr-defined]

    def options(*given: object) -> ort.SessionOptions:
        made = original(*given)
        made.add_session_config_entry("session.intra_op.allow_spinning", spin)
        made.use_per_session_threads = pool != "shared pool"
        return made

    backend._options = options  # type: ignore[attr-defined]
    return Session(load_bundle(bundle), backend, threads)


def measure(bundle: Path, setting: str, rounds: int) -> dict[int, tuple[float, ...]]:
    threads, pool, _ = SETTINGS[setting]
    if pool == "shared pool":
        ort.set_global_thread_pool_sizes(threads, 1)
    with opened(bundle, setting) as session, ThreadPoolExecutor(max(CALLERS)) as pool_of_callers:
        feeds = {name: array[:1] for name, array in load_golden(session.bundle)[0].feeds.items()}

        def share(count: int) -> None:
            for _ in range(count):
                session.run(feeds)

        calls = {callers: lambda n=callers: list(pool_of_callers.map(share, [RUNS // n] * n)) for callers in CALLERS}
        return interleave(calls, rounds)


@dataclass(frozen=True)
class Sized:
    """Median milliseconds on one thread and on all cores, and the latter's ratio to the former, of one bundle."""

    model: str
    precision: str
    largest_mflop: float
    one: float
    every: float
    ratio: Ratio


def growing() -> Iterator[Model]:
    """The shipped models, then classifiers of 56 x 56 pixels that grow."""
    yield from (resolve(name) for name in ("fashion-perceiver", "language-identifier", "emoji-namer"))
    family = FAMILIES["patch-classifier"]
    for latents, width in ((32, 64), (32, 96), (48, 128), (64, 192), (128, 256)):
        cross = CrossAttentionConfig(heads=1, qk_dim=width, v_dim=width)
        perceiver = PerceiverConfig(latents, width, cross, ProcessorConfig(blocks=2, layers=2, heads=4), cross)
        config = PatchClassifierConfig(1, 56, 56, 4, 4, width, 8, width, 10, perceiver)
        yield Model(f"patches-{latents}x{width}", family, config, family.build(config).eval(), pretrained=False)


def limit(directory: Path, rounds: int) -> Iterator[Sized]:
    """Each model at fp32 and int8-dynamic, on one thread and on all cores in turn."""
    for model in growing():
        for precision, bundle in bundles(model, directory, ("fp32", "int8-dynamic")).items():
            with open_session(bundle, "onnxruntime", 1) as one, open_session(bundle, "onnxruntime", CORES) as every:
                feeds = sized_feeds(one, load_golden(one.bundle)[0].feeds, 1)
                calls = {s.threads: partial(_several, s, feeds) for s in (one, every)}
                times = interleave(calls, rounds)
                largest = max(component.flops for component in one.manifest.components) / 1e6
            medians = [statistics.median(times[threads]) / (RUNS // 3) for threads in (1, CORES)]
            yield Sized(model.name, precision, largest, *medians, ratio(times[CORES], times[1]))  # type: ignore[arg-type,call-arg]


def _several(session: Session, feeds: Mapping[str, Array]) -> None:
    for _ in range(RUNS // 3):
        session.run(feeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--name", default="fashion-perceiver")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--setting", choices=SETTINGS, help="measure this one alone and print JSON")
    parser.add_argument("--limit", action="store_true", help="one thread against all cores, by the size of the model")
    given = parser.parse_args()
    if given.limit:
        sized = []
        for row in limit(given.directory, given.rounds):
            sized.append(row)
            print(
                f"| {row.model} | {row.precision} | {row.largest_mflop:.1f} | {row.one:.3f} | {row.every:.3f} "
                f"| {row.ratio} |",
                flush=True,
            )
        write("threads-limit", {"rounds": given.rounds, "threads": f"1 or {CORES}", "rows": sized})
        return
    bundle = bundles(resolve(given.name), given.directory, ("fp32",))["fp32"]
    if given.setting:
        print(json.dumps(measure(bundle, given.setting, given.rounds)))
        return
    rows = []
    for setting in SETTINGS:
        command = [sys.executable, __file__, *sys.argv[1:], "--setting", setting]
        times = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
        for callers in CALLERS:
            each = times[str(callers)]
            rows.append(Row(setting, callers, statistics.median(each) / RUNS, ratio(times["1"], each)))
            print(f"| {setting} | {callers} | {rows[-1].milliseconds:.3f} | {rows[-1].ratio} |", flush=True)
    write("threads", {"model": given.name, "rounds": given.rounds, "threads": "1 or 2", "rows": rows})


if __name__ == "__main__":
    main()
