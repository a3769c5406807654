"""The tables of docs/precision.md: accuracy and speed of each precision of the shipped models, and bundle sizes.

    python benchmarks/precision.py [--write]          the shipped, trained models on their held-out data
    python benchmarks/precision.py --sizes [--write]  two released configs with random weights: minutes and gigabytes

Each figure is of a bundle exported here for the target `cpu` and run by ONNX Runtime on one thread. Latency is of one
row, interleaved with PyTorch eager: the median of the ratios of neighbouring runs, and the bundle's own median.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from record import VARIANTS

from perceiver_deploy.api.bench import TORCH, bench
from perceiver_deploy.api.evaluate import evaluate
from perceiver_deploy.sources.source import blueprint, resolve
from perceiver_exporters.bundle.storage import save_graphs
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import Exporter, export_bundle
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_exporters.precision import PRECISIONS as PRECISION_TABLE
from perceiver_exporters.precision.options import DEFAULTS, QuantizationOptions
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime import load_bundle, verify

DOCUMENT = Path(__file__).parents[1] / "docs" / "precision.md"
MODELS = ("fashion-perceiver", "language-identifier", "emoji-namer")
RELEASED = ("language-perceiver", "vision-perceiver-conv")
PRECISIONS = ("fp32", "fp16", "int8", "int8-reduced", "int8-dynamic", "int8-dynamic-reduced")
SIZED = ("fp32", "fp16", "int8")
MAX_DROP = {"fp32": 0.0, "fp16": 0.1, **dict.fromkeys(PRECISIONS[2:], 0.5)}
MAX_SIZE = {"fp32": 1.0, "fp16": 0.52, "int8": 0.30}
COLUMNS = (
    "| Model | Precision | Output | Accuracy (points lost) | Macro F1 | Relative L2 (tolerance) | MB | ms (x eager) "
    "| Share in graph: weighted / all | Kernels |\n|---|---|---|---:|---:|---:|---:|---:|---:|---|"
)
SIZE_COLUMNS = "| Model (random weights) | Precision | Graphs and weights, MB | Ratio |\n|---|---|---:|---:|"


def export(name: str, made: Blueprint, folder: Path, traces: SharedTraces) -> list[Path]:
    paths = [folder / f"{name}-{precision}" for precision in PRECISIONS]
    for path, variant in zip(paths, PRECISIONS, strict=True):
        precision, options = VARIANTS.get(variant, (variant, DEFAULTS))
        export_bundle(made, path, precision, tracer=traces, quantization=options)
    return paths


def trained(name: str, folder: Path) -> Iterator[str]:
    paths = export(name, blueprint(resolve(name)), folder, SharedTraces())
    evaluated = evaluate(paths, threads=1)
    for path, precision, reports in zip(paths, PRECISIONS, evaluated, strict=True):
        shared = parity(path), f"{graphs(path) / 1e6:.2f}", latency(path), shares(path), kernels(path)
        for report in (r for r in reports if r.agreement is not None):
            lost = 0.0 - 100 * report.difference["accuracy"]
            scores = f"{report.deployed.accuracy:.4f} ({lost:+.2f}) | {report.deployed.f1:.4f}"
            verdict = "" if lost <= MAX_DROP[precision] + 1e-9 else " ABOVE ITS BOUND"
            cells = (name, precision, f"`{report.output}`", scores + verdict, *shared)
            yield f"| {' | '.join(cells)} |"
            shared = ("", "", "", "", "")


def parity(path: Path) -> str:
    """Of the whole pipeline, chained: the output nearest to its tolerance."""
    report = verify(path, threads=1)
    worst = max((r for r in report.reports if r.mode == "chained"), key=lambda r: r.rel_l2 / r.tolerance)
    return f"{worst.rel_l2:.1e} ({worst.tolerance:.1e})" + ("" if report.passed else " FAILED")


def latency(path: Path) -> str:
    (report,) = bench(path, threads=1, iterations=100)
    return f"{report.session.p50:.2f} ({report.speedups[TORCH].median:.2f})"


def shares(path: Path) -> str:
    """Weighted by the FLOPs of one run: components count as often as they are applied."""
    manifest = load_bundle(path).manifest
    flops = {c.name: c.flops * manifest.pipeline.step(c.name).repeat for c in manifest.components}
    report = load_record(path / PATH)
    total = sum(flops[entry.component] for entry in report)
    return " / ".join(
        f"{sum(flops[entry.component] * getattr(entry, kind) for entry in report) / total:.1%}"
        for kind in ("weighted", "overall")
    )


def kernels(path: Path) -> str:
    found = sorted(
        {f"{kind} {share:.0%}" for entry in load_record(path / PATH) for kind, share in entry.kernels.items()}
    )
    return ", ".join(found)


def graphs(path: Path) -> int:
    return sum(file.stat().st_size for file in (path / "onnx").iterdir())


def sizes(name: str, folder: Path) -> Iterator[str]:
    """Random weights, calibrated on one row of random input: sizes do not depend on either."""
    model = resolve(name)
    sample = model.family.sample(model.config, 1, np.random.default_rng(1))
    made = dataclasses.replace(blueprint(model), calibration=(sample,))
    traces, weights = SharedTraces(), {}
    for precision in SIZED:
        chosen, options = PRECISION_TABLE[precision], QuantizationOptions(smooth=precision != "int8")
        made_graphs = Exporter(made, chosen, TARGETS["cpu"], options, traces).records().graphs
        (folder / precision).mkdir()
        save_graphs(made_graphs, folder / precision)
        weights[precision] = graphs(folder / precision)
        ratio = weights[precision] / weights["fp32"]
        verdict = "" if ratio <= MAX_SIZE[precision] else " ABOVE ITS BOUND"
        yield f"| {name} | {precision} | {weights[precision] / 1e6:,.1f} | {ratio:.3f}{verdict} |"


def write(mark: str, lines: list[str]) -> None:
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    DOCUMENT.write_text("\n".join([f"{before}{begin}\n", *lines, f"\n{end}{after}"]), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", action="store_true", help="sizes of the released configs instead")
    parser.add_argument("--write", action="store_true", help="put the table into docs/precision.md")
    given = parser.parse_args()
    torch.set_num_threads(2 if given.sizes else 1)
    make, names, header, mark = (
        (sizes, RELEASED, SIZE_COLUMNS, "sizes") if given.sizes else (trained, MODELS, COLUMNS, "table")
    )
    lines = [header]
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            for line in make(name, Path(folder)):
                lines.append(line)
                print(line, flush=True)
    if given.write:
        write(mark, lines)


if __name__ == "__main__":
    main()
