"""Peak memory of a bundle, measured in a process that holds nothing but the lean runtime and the bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from perceiver_runtime.errors import UnavailableError

CODE = """
import json, sys
from pathlib import Path
from perceiver_runtime import load_bundle, open_session
from perceiver_runtime.golden import load_golden
from perceiver_runtime.benchmark.latency import sized_feeds
path, backend, threads, batch, runs = json.loads(sys.argv[1])
with open_session(path, backend, threads, check_finite=False) as session:
    feeds = sized_feeds(session, load_golden(session.bundle)[0].feeds, batch)
    for _ in range(runs):
        session.run(feeds)
status = Path("/proc/self/status")
lines = status.read_text().splitlines() if status.is_file() else ()
print(json.dumps(next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)))
"""
RUNS = 5
"""ONNX Runtime packs the weights of heavy graphs in the background, which takes some runs."""


def peak_memory(bundle: Path, backend: str, threads: int | None, batch: int) -> int | None:
    """Largest resident memory in bytes, Python included; None where the system does not tell it.

    Raises:
        UnavailableError: The process failed.
    """
    given = json.dumps([str(bundle), backend, threads, batch, RUNS])
    done = subprocess.run([sys.executable, "-c", CODE, given], capture_output=True, text=True, check=False)
    if done.returncode:
        raise UnavailableError(f"{bundle} on {backend}: its memory can't be measured: {done.stderr.strip()[-300:]}")
    found: int | None = json.loads(done.stdout.splitlines()[-1])
    return found
