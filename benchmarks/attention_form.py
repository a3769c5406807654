"""Attention as products or as ONNX Runtime's fused operator, on this processor: time and peak memory of a layer.

    python benchmarks/attention_form.py [--rounds 21] [--threads 2]

One self-attention layer with its MLP, at released widths with random weights, in FP32 and with its weighted products
in INT8. The forms alternate; a ratio is the time of the products over that of the operator, as median and 95%
interval. Peak memory is that of a new process over two runs, less its memory with the weights loaded. Writes
benchmarks/results/attention-form.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from onnx_ir.passes import common
from record import write

from perceiver_deploy.families import FAMILIES
from perceiver_exporters.component import Component, Cut
from perceiver_exporters.ir.quiet import quiet
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.precision.calibration.observe import observe
from perceiver_exporters.precision.integers.plan import ComponentPlan
from perceiver_exporters.precision.integers.scheme import SCHEMES
from perceiver_exporters.precision.static_integers import quantize
from perceiver_exporters.rules import REWRITE_RULES, Applied, Context, rewrite
from perceiver_exporters.rules.attention.attention_form import ATTENTION_FORM, fuse, on_cuda
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.backends.integer_products import avoid_saturation
from perceiver_runtime.benchmark.statistics import Ratio, ratio
from perceiver_runtime.benchmark.timing import interleave
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.tensors import Array

import onnxruntime as ort

CPU = TARGETS["cpu"]
MODELS = {
    "language-perceiver": ("masked-language-model", "language-perceiver"),
    "vision-perceiver-conv": ("image-classifier-conv", "vision-perceiver-conv"),
    "optical-flow-perceiver": ("optical-flow", "optical-flow-perceiver"),
}
PEAK = """
import sys
import numpy as np
import onnxruntime as ort
def status(key):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(lines[key].split()[0]) * 1024
options = ort.SessionOptions()
options.intra_op_num_threads, options.log_severity_level = int(sys.argv[2]), 3
session = ort.InferenceSession(sys.argv[1], options, ["CPUExecutionProvider"])
feeds = {i.name: np.zeros([d if isinstance(d, int) else 1 for d in i.shape], np.float32) for i in session.get_inputs()}
held = status("VmRSS")
for _ in range(2):
    session.run(None, feeds)
print(status("VmHWM") - held)
"""
Graphs = Mapping[str, ir.Model]


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer: what each form takes, products / operator in time, and how far apart their results are."""

    model: str
    precision: str
    milliseconds: Mapping[str, float]
    ratio: Ratio
    peak_bytes: Mapping[str, int]
    relative_l2: float


def layer(name: str) -> tuple[Component, Cut, dict[str, Array]]:
    """The processor block of a released model, cut down to one layer, and latents for it."""
    family, preset = FAMILIES[MODELS[name][0]], MODELS[name][1]
    config = family.presets[preset]
    perceiver = config.perceiver
    processor = dataclasses.replace(perceiver.processor, layers=1, blocks=1)
    config = dataclasses.replace(config, perceiver=dataclasses.replace(perceiver, processor=processor))
    torch.manual_seed(0)
    cut = family.cut(family.build(config).eval().requires_grad_(False))
    component = cut.component("processor_block")
    (spec,) = component.inputs
    latents = np.random.default_rng(0).standard_normal(spec.resolve({"batch": 1}), dtype=np.float32)
    return component, cut, {spec.name: latents}


def forms(name: str, precision: str) -> tuple[Graphs, dict[str, Array]]:
    """The layer in both forms, as it is exported for processors otherwise."""
    component, cut, feeds = layer(name)
    with quiet():
        model = trace(component, cut.profile, CPU.opset)
    sized, context = SizedGraph(model, component.inputs, cut.profile), Context(CPU, precision)
    rewrite(sized, context, [rule for rule in REWRITE_RULES if rule is not ATTENTION_FORM])
    if precision == "int8":
        model = quantize(model, ComponentPlan(observe(model, [feeds])), SCHEMES[CPU.quantization])
    fused = model.clone()
    verdict = fuse(SizedGraph(fused, sized.inputs, sized.profile), context, lambda sizes, _: on_cuda(sizes, "fp16"))
    if not isinstance(verdict, Applied):
        raise SystemExit(f"{name}, {precision}: expected attention that can be fused: {verdict.reason}")
    common.RemoveUnusedNodesPass()(fused)
    return {"products": model, "operator": fused}, feeds


def session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as the runtime does
    avoid_saturation(options)
    return ort.InferenceSession(path, options, ["CPUExecutionProvider"])


def peak(path: Path, threads: int) -> int:
    """Bytes that two runs needed in a process of their own."""
    done = subprocess.run([sys.executable, "-c", PEAK, str(path), str(threads)], capture_output=True, check=True)
    return int(done.stdout)


def row(name: str, precision: str, rounds: int, threads: int, folder: Path) -> Row:
    graphs, feeds = forms(name, precision)
    paths = {form: folder / f"{name}-{precision}-{form}.onnx" for form in graphs}
    for form, graph in graphs.items():
        ir.save(graph, paths[form])
    sessions = {form: session(path, threads) for form, path in paths.items()}
    times = interleave({form: partial(each.run, None, feeds) for form, each in sessions.items()}, rounds)
    exact, got = (sessions[form].run(None, feeds)[0] for form in ("products", "operator"))
    return Row(
        name,
        precision,
        milliseconds={form: float(np.median(each)) for form, each in times.items()},
        ratio=ratio(times["products"], times["operator"]),
        peak_bytes={form: peak(path, threads) for form, path in paths.items()},
        relative_l2=relative_l2(exact, got),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            for precision in ("fp32", "int8"):
                rows.append(row(name, precision, given.rounds, given.threads, Path(folder)))
                print(rows[-1], flush=True)
    write("attention-form", {"rounds": given.rounds, "threads": given.threads, "rows": rows})


if __name__ == "__main__":
    main()
