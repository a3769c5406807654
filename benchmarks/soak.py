"""Run a bundle very often, and see that memory, handles and latency stay what they are.

    python benchmarks/soak.py BUNDLE [--runs 1000000] [--backend onnxruntime] [--out FILE]

Blocks of 10,000 runs on one session and the golden sample's feeds; one in each 1,000 is refused for a wrong input.
After each block: resident memory, open files, threads, and the medians of wall and processor time of a run. The first
tenth is warm-up. Drift is the median over the last tenth / that over the second, - 1. The exit code is 1 if memory grew
by 1% or more, or files or threads were added. Writes benchmarks/results/soak/soak.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from perceiver_runtime import FeedError, Session, open_session
from perceiver_runtime.golden import load_golden
from perceiver_runtime.machine import machine
from perceiver_runtime.tensors import Array

BLOCK, REFUSED_EACH = 10_000, 1_000
SELF = Path("/proc/self")
RESULT = Path(__file__).parent / "results" / "soak" / "soak.json"


@dataclass(frozen=True)
class Block:
    """State after some runs, and microseconds of one run: the medians of the block."""

    runs: int
    resident: int
    files: int
    threads: int
    wall_us: float
    processor_us: float


@dataclass(frozen=True)
class Soak:
    """What a soak found; growth and drifts are ratios - 1."""

    model: str
    precision: str
    backend: str
    versions: Mapping[str, str]
    machine: str
    runs: int
    refused: int
    resident_growth: float
    files_added: int
    threads_added: int
    wall_drift: float
    processor_drift: float
    blocks: tuple[Block, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing grew."""
        return self.resident_growth < 0.01 and self.files_added <= 0 and self.threads_added <= 0


def soak(session: Session, feeds: Mapping[str, Array], runs: int, block: int = BLOCK) -> Soak:
    """Run so often, in whole blocks; at least ten."""
    blocks = [run_block(session, feeds, (i + 1) * block, block) for i in range(max(10, runs // block))]
    tenth = len(blocks) // 10
    warm, second, last = blocks[tenth:], blocks[tenth : 2 * tenth], blocks[-tenth:]
    manifest = session.manifest
    return Soak(
        model=manifest.source.name,
        precision=manifest.precision,
        backend=session.backend,
        versions=session.versions,
        machine=machine(),
        runs=len(blocks) * block,
        refused=len(blocks) * (block // REFUSED_EACH),
        resident_growth=max(each.resident for each in warm) / warm[0].resident - 1,
        files_added=max(each.files for each in warm) - warm[0].files,
        threads_added=max(each.threads for each in warm) - warm[0].threads,
        wall_drift=_drift([each.wall_us for each in second], [each.wall_us for each in last]),
        processor_drift=_drift([each.processor_us for each in second], [each.processor_us for each in last]),
        blocks=tuple(blocks),
    )


def run_block(session: Session, feeds: Mapping[str, Array], runs: int, block: int) -> Block:
    """One block, the last of `runs`."""
    wall, processor = np.empty(block), np.empty(block)
    for i in range(block):
        start, used = time.perf_counter(), time.thread_time()
        session.run(feeds)
        wall[i], processor[i] = time.perf_counter() - start, time.thread_time() - used
        if i % REFUSED_EACH == 0:
            with suppress(FeedError):
                session.run({"no such input": next(iter(feeds.values()))})
    return Block(
        runs,
        int((SELF / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
        sum(1 for _ in (SELF / "fd").iterdir()),
        sum(1 for _ in (SELF / "task").iterdir()),
        round(float(np.median(wall)) * 1e6, 1),
        round(float(np.median(processor)) * 1e6, 1),
    )


def _drift(before: Sequence[float], after: Sequence[float]) -> float:
    return round(float(np.median(after) / np.median(before)) - 1, 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args()
    with open_session(given.bundle, given.backend, threads=1) as session:
        feeds = {name: array[:1] for name, array in load_golden(session.bundle)[0].feeds.items()}
        found = soak(session, feeds, given.runs)
    given.out.write_text(json.dumps(asdict(found), indent=1) + "\n", encoding="utf-8")
    print({name: value for name, value in asdict(found).items() if name != "blocks"})
    return int(not found.passed)


if __name__ == "__main__":
    sys.exit(main())
