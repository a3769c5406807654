"""Threads of a small model: pools per component or shared, spinning or not, and callers that overlap.

    python benchmarks/threads.py DIRECTORY [--name fashion-perceiver] [--rounds 15]

Every process has one kind of pool, for ONNX Runtime fixes it at its first session. Milliseconds are wall time / runs,
over all callers. Writes benchmarks/results/threads.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from record import bundles, write

from perceiver_deploy.source import resolve
from perceiver_deploy.timing import Ratio, interleave, ratio
from perceiver_runtime import Session, load_bundle
from perceiver_runtime.backends import open_backend
from perceiver_runtime.golden import load_golden

import onnxruntime as ort

RUNS = 60
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
    backend.concurrency = max(CALLERS)  # type: ignore[misc]
    original = backend._options  # type: ignore[attr-defined]

    def options(entries: object) -> ort.SessionOptions:
        made = original(entries)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--name", default="fashion-perceiver")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--setting", choices=SETTINGS, help="measure this one alone and print JSON")
    given = parser.parse_args()
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
