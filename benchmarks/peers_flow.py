"""Optical flow at 368 x 496 beside its peers on this machine's CPU: seconds per frame pair and peak memory.

    python benchmarks/peers_flow.py DIRECTORY [--rounds 3] [--plain]

Every measurement is a process of its own that opens one variant and runs it once; variants take turns. `--plain` adds
the plain export on ONNX Runtime and OpenVINO, which needs 14 GB. Random weights, batch 1.
Writes benchmarks/results/peers-optical-flow.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from record import bundles, plain_export, random_weights, write

from perceiver_deploy.source import resolve
from perceiver_deploy.timing import Ratio, ratio

NAME = "optical-flow-perceiver"
EAGER = "transformers, torch eager"
TRANSFORMERS = """
import torch, transformers
torch.set_num_threads(THREADS)
kind = transformers.PerceiverForOpticalFlow
config = transformers.PerceiverConfig(
    num_latents=2048, d_latents=512, num_blocks=1, num_self_attends_per_block=24, num_self_attention_heads=16,
    num_cross_attention_heads=1, train_size=[368, 496], samples_per_patch=1,
)
model, tensor = kind(config).eval(), torch.from_numpy(inputs)
def run():
    with torch.inference_mode():
        model(inputs=tensor)
"""
SESSION = """
from perceiver_runtime import open_session
session = open_session(PATH, BACKEND, THREADS)
run = lambda: session.run({"inputs": inputs})
"""
ORT = """
import onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = THREADS
session = ort.InferenceSession(PATH, options, providers=["CPUExecutionProvider"])
run = lambda: session.run(None, {"inputs": inputs})
"""
OPENVINO = """
import openvino
compiled = openvino.compile_model(PATH, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS})
request = compiled.create_infer_request()
run = lambda: request.infer({"inputs": inputs})
"""
BEFORE = """
import json, time, numpy as np
inputs = np.random.default_rng(0).standard_normal((1, 2, 27, 368, 496), dtype=np.float32)
"""
AFTER = """
start = time.perf_counter()
run()
seconds = time.perf_counter() - start
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps([seconds, int(status["VmHWM"].split()[0]) * 1024]))
"""


@dataclass(frozen=True)
class Row:
    """Median seconds of one run and peak resident bytes; the ratio is the reference's time / this one's."""

    variant: str
    seconds: float
    peak_bytes: float
    ratio: Ratio


def measured(code: str, path: Path | None, backend: str, threads: int) -> list[float]:
    known = f"PATH, BACKEND, THREADS = {str(path)!r}, {backend!r}, {threads}\n"
    done = subprocess.run(
        [sys.executable, "-c", known + BEFORE + code + AFTER], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    values: list[float] = json.loads(done.stdout.splitlines()[-1])
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precisions", nargs="+", default=["fp32", "int8"])
    parser.add_argument("--plain", action="store_true")
    given = parser.parse_args()
    model = random_weights(resolve(NAME))
    paths = bundles(model, given.directory, tuple(given.precisions))
    variants: dict[str, tuple[str, Path | None, str]] = {EAGER: (TRANSFORMERS, None, "")}
    for precision, path in paths.items():
        for backend in ("onnxruntime", "openvino"):
            variants[f"bundle {precision}, {backend}"] = (SESSION, path, backend)
    if given.plain:
        feeds = {"inputs": np.zeros((1, 2, 27, 368, 496), np.float32)}
        plain = plain_export(model.module, feeds, given.directory / f"{NAME}-plain" / "model.onnx")
        variants |= {"plain ONNX Runtime": (ORT, plain, ""), "plain OpenVINO": (OPENVINO, plain, "")}
    del model
    values: dict[str, list[list[float]]] = {name: [] for name in variants}
    for _ in range(given.rounds):
        for name, (code, path, backend) in variants.items():
            values[name].append(measured(code, path, backend, given.threads))
            print(name, values[name][-1], flush=True)
    columns = {name: list(zip(*each, strict=True)) for name, each in values.items()}
    rows = [Row(n, median(c[0]), median(c[1]), ratio(columns[EAGER][0], c[0])) for n, c in columns.items()]
    for row in rows:
        print(f"| {row.variant} | {row.seconds:.1f} | {row.peak_bytes / 1e9:.2f} | {row.ratio} |")
    write("peers-optical-flow", {"rounds": given.rounds, "threads": given.threads, "reference": EAGER, "rows": rows})


if __name__ == "__main__":
    main()
