"""Time to open a bundle and to its first output, beside plain ONNX Runtime on the same weights.

    python benchmarks/cold_start.py DIRECTORY [--name language-perceiver] [--rounds 5]

Each measurement is its own process with a warm page cache; imports are not counted. DIRECTORY keeps the bundle and the
plain export, random weights. Writes benchmarks/results/cold-start-NAME.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from record import bundles, random_weights, write

from perceiver_deploy.peers import Workload
from perceiver_deploy.peers.onnx_runtimes import plain_export
from perceiver_deploy.sources.source import resolve
from perceiver_runtime import load_bundle
from perceiver_runtime.benchmark.statistics import Ratio, ratio
from perceiver_runtime.golden import load_golden

PLAIN = "plain ONNX Runtime"
BUNDLE = """
import sys, time, numpy as np, perceiver_runtime.backends.onnxruntime
from perceiver_runtime import open_session
feeds = dict(np.load(sys.argv[2]))
start = time.perf_counter()
session = open_session(sys.argv[1], sys.argv[3], int(sys.argv[4]))
opened = time.perf_counter()
session.run(feeds)
answered = time.perf_counter()
while any(graph._later is not None and not graph._later.done() for graph in session._executables.values()):
    time.sleep(0.01)
packed = time.perf_counter()
"""
ORT = """
import sys, time, numpy as np, onnxruntime as ort
feeds = dict(np.load(sys.argv[2]))
options = ort.SessionOptions()
options.intra_op_num_threads = int(sys.argv[4])
start = time.perf_counter()
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
opened = time.perf_counter()
session.run(None, {node.name: feeds[node.name] for node in session.get_inputs()})
answered = packed = time.perf_counter()
"""
PRINT = """
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
peak = int(status["VmHWM"].split()[0]) * 1024  # ru_maxrss counts the parent that this process was forked from
import json; print(json.dumps([opened - start, answered - start, packed - start, peak]))
"""


@dataclass(frozen=True)
class Start:
    """Median seconds from the call: until it is open, until the first answer, until weights are packed; peak bytes.

    `opening` and `answering` are this one's time / plain ONNX Runtime's.
    """

    variant: str
    opened: float
    answered: float
    packed: float
    peak: float
    opening: Ratio
    answering: Ratio


def start(code: str, path: Path, feeds: Path, backend: str, threads: int) -> list[float]:
    command = [sys.executable, "-c", code + PRINT, str(path), str(feeds), backend, str(threads)]
    values: list[float] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--name", default="language-perceiver")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    model = random_weights(resolve(given.name))
    bundle = bundles(model, given.directory, (given.precision,))[given.precision]
    golden = load_golden(load_bundle(bundle))[0].feeds
    feeds = {name: array[:1] for name, array in golden.items()}
    archive = given.directory / f"{given.name}-feeds.npz"
    np.savez(archive, **feeds)  # type: ignore[arg-type]
    plain = plain_export(Workload(model, feeds, 1, given.directory / given.name))
    del model
    variants = {
        PLAIN: (ORT, plain, ""),
        "bundle, onnxruntime": (BUNDLE, bundle, "onnxruntime"),
        "bundle, onnxruntime-quick": (BUNDLE, bundle, "onnxruntime-quick"),
    }
    measured: dict[str, list[list[float]]] = {name: [] for name in variants}
    for index in range(given.rounds + 1):
        for name, (code, path, backend) in variants.items():
            values = start(code, path, archive, backend, given.threads)
            if index:  # the first round warms the page cache
                measured[name].append(values)
    columns = {name: list(zip(*values, strict=True)) for name, values in measured.items()}
    rows = [
        Start(  # type: ignore[call-arg]
            name,
            *(statistics.median(column) for column in each),
            ratio(each[0], columns[PLAIN][0]),
            ratio(each[1], columns[PLAIN][1]),
        )
        for name, each in columns.items()
    ]
    for row in rows:
        print(
            f"| {row.variant} | {row.opened:.2f} | {row.answered:.2f} | {row.packed:.2f} | {row.peak / 1e6:,.0f} "
            f"| {row.opening} | {row.answering} |"
        )
    write(f"cold-start-{given.name}", {"rounds": given.rounds, "threads": given.threads, "rows": rows})


if __name__ == "__main__":
    main()
