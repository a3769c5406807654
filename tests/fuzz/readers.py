"""Feed damaged input to every reader and count what they answer.

    python tests/fuzz/readers.py --inputs 100000 [--seed 1] [--json FILE] [TARGET ...]

Each target runs in a process of its own. `untyped` are exceptions that are no PerceiverError, `hangs` inputs that took
more than 5 s of processor time, `crashes` targets whose process died. The exit code is 1 unless all three are 0.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path
from time import process_time
from typing import Any

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parent))
LIMIT_S = 5.0
TIMERS = {signal.ITIMER_PROF: LIMIT_S, signal.ITIMER_REAL: 60.0, signal.ITIMER_VIRTUAL: 60.0}
"""Limits of an input: processor time, time, and processor time in a library that returns to no handler."""


class Hang(BaseException):
    """An input took longer than allowed."""


def fuzz(name: str, inputs: int, seed: int) -> dict[str, Any]:
    """Answers of one target to so many inputs."""
    from fuzz.targets import TARGETS

    from perceiver_runtime.errors import PerceiverError

    warnings.simplefilter("ignore")
    counts: Counter[str] = Counter()
    sites: Counter[str] = Counter()
    first: dict[str, int] = {}
    slowest = 0.0
    signal.signal(signal.SIGALRM, _hang)
    signal.signal(signal.SIGPROF, _hang)
    with tempfile.TemporaryDirectory() as folder:
        once = TARGETS[name][0](Path(folder))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(inputs):
            chance = random.Random(f"{seed} {name} {number}")
            start = process_time()
            for timer, limit in TIMERS.items():
                signal.setitimer(timer, limit)
            try:
                once(chance)
                counts["accepted"] += 1
            except PerceiverError:
                counts["typed"] += 1
            except Hang:
                counts["hangs"] += 1
            except Exception as error:
                place = traceback.extract_tb(error.__traceback__)[-1]
                counts["untyped"] += 1
                where = f"{type(error).__name__} {Path(place.filename).name}:{place.lineno}"
                first.setdefault(where, number)
                sites[where] += 1
            finally:
                for timer in TIMERS:
                    signal.setitimer(timer, 0)
            slowest = max(slowest, process_time() - start)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "target": name,
        "inputs": inputs,
        **{kind: counts[kind] for kind in ("typed", "accepted", "untyped", "hangs")},
        "crashes": 0,
        "slowest_s": round(slowest, 2),
        "grown_mb": round(grown / 1024),
        "sites": [f"{where}: {count}, first at input {first[where]}" for where, count in sites.most_common(5)],
    }


def _hang(*_: object) -> None:
    raise Hang


def _apart(name: str, inputs: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--alone", "--inputs", str(inputs), "--seed", str(seed), name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        return {"target": name, "inputs": inputs, "crashes": 1, "sites": [f"exit code {done.returncode}"]}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> int:
    from fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", default=list(TARGETS))
    parser.add_argument("--inputs", type=int, default=10_000, help="over all targets (default: 10000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.alone:
        print(json.dumps(fuzz(given.targets[0], given.inputs, given.seed)))
        return 0
    shares = sum(TARGETS[name][1] for name in given.targets)
    columns = ("inputs", "typed", "accepted", "untyped", "hangs", "crashes", "slowest_s", "grown_mb")
    print(f"| target | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    rows = []
    for name in given.targets:
        row = _apart(name, max(1, given.inputs * TARGETS[name][1] // shares), given.seed)
        rows.append(row)
        print(f"| {name} | {' | '.join(str(row.get(column, 'not measured')) for column in columns)} |", flush=True)
        for site in row["sites"]:
            print(f"  {site}", file=sys.stderr, flush=True)
    total = {column: sum(row.get(column, 0) for row in rows) for column in columns[:6]}
    print(f"| **all** | {' | '.join(map(str, total.values()))} | | |")
    if given.json:
        given.json.write_text(json.dumps({"seed": given.seed, "total": total, "targets": rows}, indent=1) + "\n")
    return int(any(total[kind] for kind in ("untyped", "hangs", "crashes")))


if __name__ == "__main__":
    sys.exit(main())
