"""A released size beside its peers on this machine's CPU: torch eager and compiled, plain ONNX Runtime, OpenVINO.

    python benchmarks/peers.py NAME DIRECTORY [--rounds 10] [--precisions fp32 int8] [--skip VARIANT ...]

Random weights, batch 1, all variants in turn, end to end from arrays to arrays. DIRECTORY keeps the bundles and the
plain export. Writes benchmarks/results/peers-NAME.json.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from record import (
    bundles,
    compare,
    markdown,
    plain_export,
    plain_onnxruntime,
    plain_openvino,
    random_weights,
    write,
)

from perceiver_deploy.benchmarking import eager_call
from perceiver_deploy.source import resolve
from perceiver_deploy.timing import Call
from perceiver_runtime import UnavailableError, open_session
from perceiver_runtime.golden import load_golden
from perceiver_runtime.latency import BATCH

BACKENDS = ("onnxruntime", "openvino", "openvino-bf16")
REFERENCES = ("torch eager", "plain ONNX Runtime", "plain OpenVINO")


def session_call(bundle: Path, backend: str, threads: int, feeds: Any) -> Call | None:
    try:
        session = open_session(bundle, backend, threads)
    except UnavailableError as error:
        print(error)
        return None
    return lambda: session.run(feeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--skip", nargs="*", default=[], help="variants whose names begin so")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = random_weights(resolve(given.name))
    paths = bundles(model, given.directory, tuple(given.precisions))
    with open_session(paths[given.precisions[0]], threads=1) as session:
        sample, specs = load_golden(session.bundle)[0].feeds, session.inputs
    feeds = {s.name: sample[s.name][:1] if BATCH in s.shape else sample[s.name] for s in specs if s.name in sample}
    plain = plain_export(model.module, feeds, given.directory / f"{given.name}-plain" / "model.onnx")
    makers: dict[str, Any] = {
        "torch eager": lambda: eager_call(model, feeds),
        "torch.compile": lambda: eager_call(replace(model, module=torch.compile(model.module)), feeds),
        "plain ONNX Runtime": lambda: plain_onnxruntime(plain, feeds, given.threads),
        "plain OpenVINO": lambda: plain_openvino(plain, feeds, given.threads),
        **{
            f"bundle {precision}, {backend}": lambda p=path, b=backend: session_call(p, b, given.threads, feeds)
            for precision, path in paths.items()
            for backend in BACKENDS
        },
    }
    calls = {
        name: call
        for name, make in makers.items()
        if not name.startswith(tuple(given.skip)) and (call := make()) is not None
    }
    rows = compare(calls, REFERENCES, given.rounds)
    print(markdown(rows))
    write(f"peers-{given.name}", {"rounds": given.rounds, "threads": given.threads, "batch": 1, "rows": rows})


if __name__ == "__main__":
    main()
