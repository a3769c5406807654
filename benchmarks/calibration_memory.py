"""Peak memory of a calibration over 1,000 and over 100,000 streamed samples, each in a process of its own.

    python benchmarks/calibration_memory.py

A small image classifier with random weights is calibrated for int8 on samples that a generator makes, as from
`--data file.py:function`: they are counted, drawn, surveyed, hashed for the cache and read through the reference, and
each exists only while it is read. The script fails if the larger peak is more than MAX_RATIO of the smaller one. The
result is `benchmarks/results/calibration-memory.json`, the table of which is in docs/results/sessions.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from record import write

from perceiver_deploy.data.code import records_in
from perceiver_deploy.data.draw import DataOptions, dataset_of
from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.config import CrossAttentionConfig, PerceiverConfig, ProcessorConfig
from perceiver_deploy.models.patches import PatchClassifierConfig
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import blueprint
from perceiver_exporters.exporter import Exporter
from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.precision.options import QuantizationOptions
from perceiver_exporters.targets.target import TARGETS

COUNTS = (1_000, 100_000)
MAX_RATIO = 1.05
THREADS = 1
CROSS = CrossAttentionConfig(heads=1, qk_dim=16, v_dim=16)
PERCEIVER = PerceiverConfig(8, 32, CROSS, ProcessorConfig(blocks=1, layers=1, heads=4), CROSS)
CONFIG = PatchClassifierConfig(1, 16, 16, 4, 4, 16, 2, 16, 10, PERCEIVER)


@dataclass(frozen=True)
class Row:
    """One process: calibration samples, its peak memory in bytes, and its seconds."""

    samples: int
    peak: int
    seconds: float


def samples(count: int) -> Iterator[dict[str, object]]:
    """Made one by one."""
    random = np.random.default_rng(0)
    for number in range(count):
        yield {"pixel_values": random.standard_normal((1, 16, 16), dtype=np.float32), "logits": number % 10}


def run(count: int) -> Row:
    """Calibrate on so many samples; 8 more are golden."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    family = FAMILIES["patch-classifier"]
    model = Model("small", family, CONFIG, family.build(CONFIG).eval(), False)
    start = time.perf_counter()
    options = DataOptions(calibration=count, golden=8, evaluation=0)
    data = dataset_of(model, records_in(lambda: samples(count + 8)), options)
    made = blueprint(Model(model.name, family, CONFIG, model.module, False, data))
    with tempfile.TemporaryDirectory() as cache:
        quantization = QuantizationOptions(cache=Path(cache))
        Exporter(made, PRECISIONS["int8"], TARGETS["cpu"], quantization).records()
    return Row(count, peak(), time.perf_counter() - start)


def peak() -> int:
    """Bytes, of this program alone: ru_maxrss counts the process that it was forked from, too."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def main() -> None:
    """Measure, record, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count is not None:
        print(json.dumps(asdict(run(given.count))))
        return
    rows = []
    for count in COUNTS:
        command = [sys.executable, __file__, "--count", str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(Row(**json.loads(done.stdout.splitlines()[-1])))
        print(rows[-1], flush=True)
    write("calibration-memory", {"threads": THREADS, "rows": rows})
    if (ratio := rows[-1].peak / rows[0].peak) > MAX_RATIO:
        sys.exit(f"{COUNTS[1]:,} samples take {ratio:.3f} times the memory of {COUNTS[0]:,}: more than {MAX_RATIO}")


if __name__ == "__main__":
    main()
