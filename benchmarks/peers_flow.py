"""Optical flow at 368 x 496 beside its peers on this machine's CPU: seconds per frame pair and peak memory.

    python benchmarks/peers_flow.py DIRECTORY [--rounds 3] [--plain] [--plain-int8] [--prepare] [--label vnni]

Every measurement is its own process, which opens one variant and runs it once; variants alternate. `--plain` adds
the plain export on ONNX Runtime and OpenVINO, which needs 14 GB; `--plain-int8` also their quantised graphs
(see peer_variants.py). DIRECTORY keeps all graphs; `--prepare` makes them without timing. Random weights, batch 1.
Plain OpenVINO is at its default: bfloat16 where the processor has it. Writes
benchmarks/results/peers-optical-flow.json, or peers-optical-flow-LABEL.json for another kind of processor.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from peer_variants import static_onnxruntime, static_openvino
from record import bundles, random_weights, ratios, write

from perceiver_deploy.peers import Workload
from perceiver_deploy.peers.onnx_runtimes import plain_export
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import resolve
from perceiver_runtime.benchmark.statistics import Ratio

import openvino

NAME = "optical-flow-perceiver"
SHAPE = (1, 2, 27, 368, 496)
EAGER = "transformers, torch eager"
Variants = dict[str, tuple[str, Path | None, str]]
"""Code that opens a variant as `run`, and the PATH and BACKEND in it; perceiver_runtime turns usage reports off."""
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
import perceiver_runtime
import openvino
compiled = openvino.compile_model(PATH, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": THREADS})
request = compiled.create_infer_request()
run = lambda: request.infer({"inputs": inputs})
"""
BEFORE = f"""
import json, time, numpy as np
inputs = np.random.default_rng(0).standard_normal({SHAPE}, dtype=np.float32)
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
    """Median seconds of one run and peak resident bytes; the ratios are a reference's time / this one's."""

    variant: str
    seconds: float
    peak_bytes: float
    ratios: Mapping[str, Ratio]


def measured(code: str, path: Path | None, backend: str, threads: int) -> list[float]:
    known = f"PATH, BACKEND, THREADS = {str(path)!r}, {backend!r}, {threads}\n"
    done = subprocess.run(
        [sys.executable, "-c", known + BEFORE + code + AFTER], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    values: list[float] = json.loads(done.stdout.splitlines()[-1])
    return values


def plain_variants(model: Model, directory: Path, int8: bool) -> Variants:
    """The plain export on both runtimes, and what their quantisers make of it."""
    feeds = {"inputs": np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)}
    plain = plain_export(Workload(model, feeds, 1, directory / NAME))
    found: Variants = {"plain ONNX Runtime": (ORT, plain, ""), "plain OpenVINO": (OPENVINO, plain, "")}
    if int8:
        found["plain ONNX Runtime, static int8"] = (ORT, static_onnxruntime(plain, feeds), "")
        found["plain OpenVINO, static int8"] = (OPENVINO, static_openvino(plain, feeds), "")
    return found


def rows(times: Mapping[str, list[list[float]]]) -> list[Row]:
    """From [seconds, bytes] of each round."""
    columns = {name: list(zip(*each, strict=True)) for name, each in times.items()}
    peers = [name for name in times if not name.startswith("bundle")]
    groups = {"best of OpenVINO": [name for name in peers if "OpenVINO" in name], "best peer": peers}
    compared = ratios({name: seconds for name, (seconds, _) in columns.items()}, (EAGER,), groups)
    return [Row(n, median(seconds), median(peak), compared[n]) for n, (seconds, peak) in columns.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precisions", nargs="*", default=["fp32", "int8"])
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--plain-int8", action="store_true")
    parser.add_argument("--label", help="of the kind of processor, where results of another kind are to stay")
    parser.add_argument("--prepare", action="store_true", help="make what DIRECTORY keeps and time nothing")
    given = parser.parse_args()
    model = random_weights(resolve(NAME))
    variants: Variants = {EAGER: (TRANSFORMERS, None, "")}
    capable = openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    backends = ("onnxruntime", "openvino", *(["openvino-bf16"] if "BF16" in capable else []))
    for precision, path in bundles(model, given.directory, tuple(given.precisions)).items():
        variants |= {f"bundle {precision}, {name}": (SESSION, path, name) for name in backends}
    if given.plain or given.plain_int8:
        variants |= plain_variants(model, given.directory, given.plain_int8)
    del model
    if given.prepare:
        return
    values: dict[str, list[list[float]]] = {name: [] for name in variants}
    for _ in range(given.rounds):
        for name, (code, path, backend) in variants.items():
            values[name].append(measured(code, path, backend, given.threads))
            print(name, values[name][-1], flush=True)
    found = rows(values)
    for row in found:
        print(f"| {row.variant} | {row.seconds:.1f} | {row.peak_bytes / 1e9:.2f} | {dict(row.ratios)} |")
    write(
        "-".join(filter(None, ("peers-optical-flow", given.label))),
        {"rounds": given.rounds, "threads": given.threads, "rows": found},
    )


if __name__ == "__main__":
    main()
