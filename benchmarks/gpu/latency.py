"""Latency, power and clocks of a bundle on this machine's GPU, as JSON.

    python benchmarks/gpu/latency.py BUNDLE --backend tensorrt

Times are of whole calls from host arrays to host arrays: transfers included, CUDA graphs on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from perceiver_runtime import measure, open_session
from perceiver_runtime.format.schema import encode
from perceiver_runtime.telemetry import open_source, record


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--backend", default="tensorrt")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=200)
    options = parser.parse_args()
    with open_session(options.bundle, options.backend) as session, record(open_source()) as recording:
        latency = measure(session, batch=options.batch, iterations=options.runs)
        versions = dict(session.versions)
    stated = {"transfers": "included", "cuda_graphs": "on", "versions": versions}
    print(json.dumps({"latency": encode(latency), "device": encode(recording.summary()), **stated}, indent=2))


if __name__ == "__main__":
    main()
