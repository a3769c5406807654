"""INT8 on processors: static ranges against ranges taken at run time, speed and error, and what attention still takes.

    python benchmarks/integers.py [--rounds 15] [--threads 2] [--layers 4]

Speed: a language model's processor block at released widths with few layers and random weights. Error: each component
of the shipped models, on their own golden samples, as relative L2 to the reference in FP64. Variants take turns; a
ratio is the median over the rounds, in brackets its 10th and 90th percentile.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnxruntime import quantization

from perceiver_deploy.families import FAMILIES
from perceiver_deploy.source import blueprint, resolve
from perceiver_exporters.component import Component, Cut
from perceiver_exporters.precision import Feeds
from perceiver_exporters.precision.calibration.observe import observe
from perceiver_exporters.precision.int8 import SCHEMES, quantize
from perceiver_exporters.precision.layers import weighted
from perceiver_exporters.precision.plan import ComponentPlan
from perceiver_exporters.quiet import quiet
from perceiver_exporters.reference import Reference
from perceiver_exporters.rules import Context, rewrite
from perceiver_exporters.samples import make_samples
from perceiver_exporters.targets import TARGETS
from perceiver_exporters.tolerance import relative_l2
from perceiver_exporters.trace import trace
from perceiver_runtime.golden import Application
from perceiver_runtime.latency import machine
from perceiver_runtime.tensors import Array

CPU = TARGETS["cpu"]
SHIPPED = ("language-identifier", "fashion-perceiver")
ATTENTION = {"Softmax", "FusedMatMul", "Transpose"}
"""Kernels that attention alone needs; its last product is a MatMul between two activations."""

Graphs = Mapping[str, onnx.ModelProto]


def graphs(component: Component, cut: Cut, feeds: Sequence[Feeds]) -> Graphs:
    """One component in FP32, static INT8 as exported, and with dynamic ranges by ONNX Runtime's quantiser."""
    with quiet():
        model = trace(component, cut.profile, CPU.opset)
    step = cut.pipeline.step(component.name)
    rewrite(model, Context(component.name, component.inputs, cut.profile, CPU, "int8", step))
    static = quantize(model, ComponentPlan(observe(model, feeds)), SCHEMES[CPU.quantization])
    single: onnx.ModelProto = ir.to_proto(model)
    names = [str(node.name) for node in weighted(model.graph)]
    return {"fp32": single, "static": ir.to_proto(static), "dynamic": dynamic(single, names)}


def dynamic(single: onnx.ModelProto, products: list[str]) -> onnx.ModelProto:
    """Weights per channel; activations over the range that each run has."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        path = Path(folder, "dynamic.onnx")
        quantization.quantize_dynamic(
            single,
            path,
            per_channel=True,
            weight_type=quantization.QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_quantize=products,
        )
        return onnx.load(path)


def session(graph: onnx.ModelProto, threads: int, profile: str = "") -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.x64quantprecision", "1")  # as the runtime does
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


def speed(layers: int, rounds: int, threads: int) -> None:
    component, cut, feeds = language_block(layers)
    made = graphs(component, cut, [feeds])
    sessions = {name: session(graph, threads) for name, graph in made.items()}
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds + 1):
        for name, each in sessions.items():
            start = perf_counter()
            each.run(None, feeds)
            times[name].append((perf_counter() - start) * 1e3)
    exact = sessions["fp32"].run(None, feeds)[0]
    print(f"{machine()}, {threads} threads, ONNX Runtime {ort.__version__}; {layers} layers of 1280, 256 latents\n")
    print("| Graph | ms | FP32 / this | relative L2 to FP32 | attention's share of kernel time |")
    print("|---|---:|---:|---:|---:|")
    for name, each in times.items():
        low, middle, high = np.percentile(np.divide(times["fp32"][1:], each[1:]), (10, 50, 90))
        error = relative_l2(exact, sessions[name].run(None, feeds)[0])
        share = attention_share(made[name], feeds, threads)
        print(
            f"| {name} | {np.median(each[1:]):.1f} | {middle:.2f} ({low:.2f}-{high:.2f}) | {error:.1e} | {share:.0%} |"
        )


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
    return event["args"]["op_name"] in ATTENTION or "attention/MatMul_1" in name  # type: ignore[index]


def errors(threads: int) -> None:
    print("\n| Model | Component | static | dynamic |\n|---|---|---:|---:|")
    for name in SHIPPED:
        made = blueprint(resolve(name))
        golden = make_samples(made.cut, made.golden[:1])[0]
        reference = Reference(made.cut)
        for component in made.cut.components:
            feeds = [
                a.inputs for f in made.calibration for a in reference.applications(f) if a.component == component.name
            ]
            built = graphs(component, made.cut, feeds)
            application = golden.components[component.name]
            static, fresh = (distance(built[kind], application, threads) for kind in ("static", "dynamic"))
            print(f"| {name} | {component.name} | {static:.1e} | {fresh:.1e} |")


def distance(graph: onnx.ModelProto, application: Application, threads: int) -> float:
    """Relative L2 of a graph's outputs to the golden ones, the largest."""
    outputs = session(graph, threads).run(None, dict(application.inputs))
    return max(relative_l2(exact, got) for exact, got in zip(application.outputs.values(), outputs, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--layers", type=int, default=4)
    given = parser.parse_args()
    speed(given.layers, given.rounds, given.threads)
    errors(given.threads)


if __name__ == "__main__":
    main()
