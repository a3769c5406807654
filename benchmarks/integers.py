"""INT8 variants of a bundle on a processor: static or dynamic ranges, weights of 8 or 7 bits.

    python benchmarks/integers.py [--rounds 15] [--threads 2] [--layers 4]

Speed: a language model's processor block at released width with few layers and random weights, and attention's share of
its time. Error: each component of the shipped models on its golden samples, as relative L2 to the reference in FP64.
Variants alternate. Writes benchmarks/results/integers.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import torch
from record import write

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.sources.source import blueprint, resolve
from perceiver_exporters.component import Component, Cut
from perceiver_exporters.ir.quiet import quiet
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.precision import PRECISIONS, Feeds, Request
from perceiver_exporters.precision.calibration.observe import observe
from perceiver_exporters.precision.dynamic_integers import make_plan
from perceiver_exporters.precision.integers.plan import ComponentPlan
from perceiver_exporters.precision.integers.scheme import SCHEMES
from perceiver_exporters.reference import Reference
from perceiver_exporters.rules import Context, rewrite
from perceiver_exporters.samples import make_samples
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.backends.integer_products import avoid_saturation
from perceiver_runtime.benchmark.statistics import Ratio, ratio
from perceiver_runtime.benchmark.timing import interleave
from perceiver_runtime.golden import ComponentCall
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.tensors import Array

import onnxruntime as ort

CPU = TARGETS["cpu"]
SHIPPED = ("language-identifier", "fashion-perceiver", "emoji-namer")
FP32 = "fp32"
VARIANTS = {
    "int8": ("int8", CPU.quantization),
    "int8, 7-bit": ("int8", CPU.reduced),
    "int8-dynamic": ("int8-dynamic", CPU.quantization),
    "int8-dynamic, 7-bit": ("int8-dynamic", CPU.reduced),
}
"""Precision and scheme."""

ATTENTION = {"Softmax", "FusedMatMul", "Transpose"}
"""Kernels that attention alone needs; its last product is a MatMul between two activations."""

Graphs = Mapping[str, onnx.ModelProto]


@dataclasses.dataclass(frozen=True)
class SpeedRow:
    """Median milliseconds, FP32's time / this, relative L2 to FP32, attention's share of the time of all kernels."""

    variant: str
    milliseconds: float
    ratio: Ratio
    error: float
    attention: float


@dataclasses.dataclass(frozen=True)
class ErrorRow:
    """Largest relative L2 of a component's outputs, by variant."""

    model: str
    component: str
    errors: Mapping[str, float]


def graphs(component: Component, cut: Cut, feeds: Sequence[Feeds]) -> Graphs:
    """One component in FP32 and in every variant, as exported but for scale migration."""
    with quiet():
        model = trace(component, cut.profile, CPU.opset)
    rewrite(SizedGraph(model, component.inputs, cut.profile), Context(CPU, "int8"))
    plans = {"int8": ComponentPlan(observe(model, feeds)), "int8-dynamic": make_plan(model)}
    made = {FP32: ir.to_proto(model)}
    for name, (precision, scheme) in VARIANTS.items():
        request = Request(component.name, SCHEMES[scheme], lambda: iter(()), plan=plans[precision])
        made[name] = ir.to_proto(PRECISIONS[precision].rewrite(model.clone(), request))
    return made


def session(graph: onnx.ModelProto, threads: int, profile: str = "") -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    avoid_saturation(options)
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, profile
    return ort.InferenceSession(graph.SerializeToString(), options, ["CPUExecutionProvider"])


def language_block(layers: int) -> tuple[Component, Cut, dict[str, Array]]:
    """The processor block of the released language model, with fewer layers and random weights."""
    family = FAMILIES["masked-language-model"]
    config = family.presets["language-perceiver"]
    perceiver = config.perceiver
    processor = dataclasses.replace(perceiver.processor, layers=layers)
    config = dataclasses.replace(config, perceiver=dataclasses.replace(perceiver, processor=processor))
    torch.manual_seed(0)
    cut = family.cut(family.build(config).eval().requires_grad_(False))
    latents = np.random.default_rng(0).standard_normal((1, 256, 1280), dtype=np.float32)
    return cut.component("processor_block"), cut, {"latents": latents}


def speed(layers: int, rounds: int, threads: int) -> list[SpeedRow]:
    component, cut, feeds = language_block(layers)
    made = graphs(component, cut, [feeds])
    sessions = {name: session(graph, threads) for name, graph in made.items()}
    times = interleave({name: lambda s=s: s.run(None, feeds) for name, s in sessions.items()}, rounds)
    exact = sessions[FP32].run(None, feeds)[0]
    return [
        SpeedRow(
            name,
            float(np.median(each)),
            ratio(times[FP32], each),
            relative_l2(exact, sessions[name].run(None, feeds)[0]),
            attention_share(made[name], feeds, threads),
        )
        for name, each in times.items()
    ]


def attention_share(graph: onnx.ModelProto, feeds: Mapping[str, Array], threads: int, runs: int = 5) -> float:
    """Of the time that kernels take, what is spent between the projections."""
    with tempfile.TemporaryDirectory() as folder:
        profiled = session(graph, threads, f"{folder}/profile")
        for _ in range(runs):
            profiled.run(None, feeds)
        events = json.loads(Path(profiled.end_profiling()).read_text(encoding="utf-8"))
    spent: Counter[bool] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[_is_attention(event)] += event["dur"]
    return spent[True] / (spent[True] + spent[False])


def _is_attention(event: Mapping[str, object]) -> bool:
    name = str(event["name"])
    return event["args"]["op_name"] in ATTENTION or "attention/MatMul_1" in name


def errors(threads: int) -> Iterator[ErrorRow]:
    for name in SHIPPED:
        made = blueprint(resolve(name))
        golden = make_samples(made.cut, made.golden[:1])[0]
        reference = Reference(made.cut)
        for component in made.cut.components:
            feeds = [a.inputs for f in made.calibration for a in reference.calls(f) if a.component == component.name]
            built = graphs(component, made.cut, feeds)
            call = golden.components[component.name]
            yield ErrorRow(name, component.name, {kind: distance(built[kind], call, threads) for kind in VARIANTS})


def distance(graph: onnx.ModelProto, call: ComponentCall, threads: int) -> float:
    """Relative L2 of a graph's outputs to the golden ones, the largest."""
    outputs = session(graph, threads).run(None, dict(call.inputs))
    return max(relative_l2(exact, got) for exact, got in zip(call.outputs.values(), outputs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=4)
    given = parser.parse_args()
    timed = speed(given.layers, given.rounds, given.threads)
    for row in timed:
        print(
            f"{row.variant}: {row.milliseconds:.1f} ms, {row.ratio}, {row.error:.1e}, {row.attention:.0%}", flush=True
        )
    lost = list(errors(given.threads))
    for each in lost:
        print(f"{each.model} {each.component}: {', '.join(f'{k} {v:.1e}' for k, v in each.errors.items())}", flush=True)
    result = {"rounds": given.rounds, "threads": given.threads, "layers": given.layers, "speed": timed, "errors": lost}
    write("integers", result)


if __name__ == "__main__":
    main()
