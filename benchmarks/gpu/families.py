"""Models of the zoo on an NVIDIA GPU: bundles on ONNX Runtime's CUDA provider beside PyTorch, eager and compiled.

    python benchmarks/gpu/families.py DIRECTORY [NAME ...] [--rounds 50] [--patience SECONDS] [--results DIRECTORY]

Random weights where the zoo has none, batch 1. Inputs and outputs are on the GPU, but for `from the host`; a call ends
when its results are complete. FP32 is FP32: TF32 is off everywhere. Each model has a process of its own
(one_model.py). All are prepared side by side, which takes the processor's cores, and then measured one after the other;
those that are not ready after PATIENCE seconds are left out, and said to be. Writes benchmarks/results/gpu.json after
each model. `--device cpu` shows that the scripts work where there is no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
sys.path[:0] = [str(FOLDER.parent)]

import torch  # noqa: E402
from record import RESULTS, described, versions  # noqa: E402

from perceiver_runtime.machine import usable_cores  # noqa: E402

NAMES = (
    "multimodal-perceiver",  # takes longest to prepare
    "optical-flow-perceiver",
    "vision-perceiver-fourier",
    "vision-perceiver-learned",
    "vision-perceiver-conv",
    "language-perceiver",
    "language-perceiver-classifier",
    "perceiver-pytorch-image",
    "perceiver-pytorch-io",
    "perceiver-pytorch-text",
    "perceiver-io-mnist",
    "fashion-perceiver",
)
READY, GO = "ready", "go"


class Child:
    """The process of one model. It prints READY when it is prepared, and measures when it reads GO."""

    def __init__(self, name: str, given: argparse.Namespace, threads: int) -> None:
        self.name, self._result = name, given.directory / f"{name}.json"
        self._result.unlink(missing_ok=True)
        asked = (name, str(given.directory), str(given.rounds), given.device, *given.skip)
        command = [sys.executable, str(FOLDER / "one_model.py"), *asked]
        limits = dict.fromkeys(("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS"), str(threads))
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **limits}
        )
        self.ready = threading.Event()  # or ended
        threading.Thread(target=self._listen, daemon=True).start()

    def measure(self) -> dict[str, Any] | None:
        """What it measured; None if it was not ready or failed."""
        if not self.ready.is_set():
            self._process.kill()
        elif self._process.poll() is None:
            assert self._process.stdin is not None  # a pipe
            self._process.stdin.write(f"{GO}\n")
            self._process.stdin.close()
        self._process.wait()
        return json.loads(self._result.read_text(encoding="utf-8")) if self._result.exists() else None

    def _listen(self) -> None:
        assert self._process.stdout is not None  # a pipe
        for line in self._process.stdout:
            print(f"{self.name}: {line}", end="", flush=True)
            if line.strip() == READY:
                self.ready.set()
        self.ready.set()


def measured(given: argparse.Namespace) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Each model with what was measured."""
    threads = max(1, usable_cores() // min(4, len(given.names)))  # small models are soon done
    children = [Child(name, given, threads) for name in given.names]
    end = time.monotonic() + given.patience
    for child in children:
        child.ready.wait(max(0.0, end - time.monotonic()))
    for child in sorted(
        children, key=lambda child: child.ready.is_set()
    ):  # what is still being prepared is ended first
        yield child.name, child.measure()


def gpu(device: str) -> dict[str, Any]:
    """The GPU, its driver and the CUDA that PyTorch was built for."""
    if device == "cpu":
        return {"name": "none"}
    query = ["nvidia-smi", "--query-gpu=name,driver_version,power.limit,clocks.max.sm", "--format=csv,noheader"]
    shown = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    keys = ("name", "driver", "power limit", "largest clock")
    stated = dict(zip(keys, (part.strip() for part in shown.split(",")), strict=True))
    capability = "{}.{}".format(*torch.cuda.get_device_capability())
    return {**stated, "compute capability": capability, "cuda": torch.version.cuda}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", default=NAMES)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--patience", type=float, default=3600.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--skip", nargs="*", default=[], help="variants whose names begin so")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    given = parser.parse_args()
    given.directory.mkdir(parents=True, exist_ok=True)
    stated = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": described(),
        "versions": versions(),
        "gpu": gpu(given.device),
    }
    models: dict[str, Any] = {}
    left_out = []
    for name, found in measured(given):
        if found is None:
            left_out.append(name)
        else:
            models[name] = found
        record = {**stated, "rounds": given.rounds, "batch": 1, "models": models, "left_out": left_out}
        (given.results / "gpu.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    if left_out:
        sys.exit(f"not ready in time, or failed: {', '.join(left_out)}")


if __name__ == "__main__":
    main()
