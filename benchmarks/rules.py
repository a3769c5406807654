"""Contribution of each rewrite rule: components of released sizes with all rules, and without each of them.

    python benchmarks/rules.py [--rounds 15] [--threads 2] [--only NAME ...] [--write docs/results/rules.md]

Random weights; FP32 on ONNX Runtime's CPU provider; batch 1. Variants alternate within a round, so that other load
affects all of them; a ratio is the median over the rounds, in brackets its 10th and 90th percentiles. `--write` puts
the tables between the markers of a document.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx_ir as ir
import torch

from perceiver_deploy.families import FAMILIES
from perceiver_exporters.component import Component, Cut
from perceiver_exporters.ir.quiet import quiet
from perceiver_exporters.ir.sized import SizedGraph
from perceiver_exporters.ir.trace import trace
from perceiver_exporters.rules import REWRITE_RULES, Context, RewriteRule, RuleOutcome, rewrite
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.machine import machine
from perceiver_runtime.tensors import Array

import onnxruntime as ort

SUBJECTS = (
    ("vision-perceiver-fourier", "encoder"),
    ("vision-perceiver-conv", "encoder"),
    ("vision-perceiver-conv", "decoder"),
    ("language-perceiver", "encoder"),
    ("language-perceiver", "decoder"),
    ("optical-flow-perceiver", "encoder_fold"),
    ("optical-flow-perceiver", "decoder"),
    ("multimodal-perceiver", "image_decoder"),
)
BEGIN, END = "<!-- benchmarks/rules.py: begin -->", "<!-- benchmarks/rules.py: end -->"


@dataclass(frozen=True)
class Variant:
    """A graph under test and what was done to it."""

    name: str
    session: ort.InferenceSession
    outcomes: tuple[RuleOutcome, ...]


def build(model: str) -> Cut:
    """The model at its released size with random weights, cut."""
    family = next(f for f in FAMILIES.values() if model in f.presets)
    torch.manual_seed(0)
    module = family.build(family.presets[model]).eval().requires_grad_(False)
    for name, parameter in module.named_parameters():
        if parameter.ndim < 2:
            parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.1)
    return family.cut(module)


def inputs(component: Component, cut: Cut) -> dict[str, Array]:
    """Random inputs at the profile's `opt` sizes; an index counts up, a mask excludes nothing."""
    random, feeds = np.random.default_rng(0), {}
    for spec in component.inputs:
        shape = cut.profile.shapes(spec)[1]
        if spec.dtype != "int64":
            feeds[spec.name] = random.standard_normal(shape, dtype=np.float32)
        elif len(shape) == 1:
            feeds[spec.name] = np.arange(shape[0])  # type: ignore[assignment]
        else:
            feeds[spec.name] = np.ones(shape, np.int64) if "mask" in spec.name else random.integers(0, 200, shape)  # type: ignore[assignment]
    return feeds


def variants(graph: ir.Model, component: Component, cut: Cut, threads: int) -> list[Variant]:
    """The graph as traced, with all rules, and without each of those that were applied."""
    whole = _variant("all rules", graph, component, cut, REWRITE_RULES, threads)
    applied = [o.rule for o in whole.outcomes if o.applied and o.before != o.after]
    without = [
        _variant(f"without {name}", graph, component, cut, [r for r in REWRITE_RULES if r.name != name], threads)
        for name in (applied if len(applied) > 1 else [])
    ]
    return [_variant("as traced", graph, component, cut, (), threads), whole, *without]


def _variant(
    name: str, graph: ir.Model, component: Component, cut: Cut, rules: Sequence[RewriteRule], threads: int
) -> Variant:
    model = graph.clone()
    outcomes = rewrite(SizedGraph(model, component.inputs, cut.profile), Context(TARGETS["cpu"], "fp32"), rules)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString(), options, ["CPUExecutionProvider"])
    return Variant(name, session, outcomes)


def interleave(made: Sequence[Variant], feeds: Mapping[str, Array], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each variant in each round, after one that is not counted."""
    times: dict[str, list[float]] = {variant.name: [] for variant in made}
    for _ in range(rounds + 1):
        for variant in made:
            start = perf_counter()
            variant.session.run(None, feeds)
            times[variant.name].append((perf_counter() - start) * 1e3)
    return {name: each[1:] for name, each in times.items()}


def ratio(slow: Sequence[float], fast: Sequence[float]) -> str:
    """Median and spread of slow / fast over the rounds."""
    low, middle, high = np.percentile(np.divide(slow, fast), (10, 50, 90))
    return f"{middle:.2f} ({low:.2f}-{high:.2f})"


def table(model: str, component: str, made: Sequence[Variant], times: Mapping[str, list[float]]) -> str:
    """Markdown: the totals, then each applied rule, then why the others declined."""
    plain, whole = (variant.name for variant in made[:2])
    outcomes = made[1].outcomes
    first, last = outcomes[0].before, outcomes[-1].after
    lines = [
        f"### {model}, {component}",
        "",
        f"As traced {np.median(times[plain]):.1f} ms, with all rules {np.median(times[whole]):.1f} ms: "
        f"{ratio(times[plain], times[whole])} times as fast.",
        "",
        "| RewriteRule | GFLOP | MB written | MB of constants | slower without it |",
        "|---|---:|---:|---:|---:|",
        f"| all | {_change(first.flops, last.flops, 1e9)} | {_change(first.written, last.written, 1e6)} "
        f"| {_change(first.constants, last.constants, 1e6)} | {ratio(times[plain], times[whole])} |",
    ]
    for o in outcomes:
        if o.applied and o.before != o.after:
            alone = times.get(f"without {o.rule}", times[plain])
            lines.append(
                f"| {o.rule} | {_change(o.before.flops, o.after.flops, 1e9)} "
                f"| {_change(o.before.written, o.after.written, 1e6)} "
                f"| {_change(o.before.constants, o.after.constants, 1e6)} | {ratio(alone, times[whole])} |"
            )
    return "\n".join(lines)


def _change(before: int, after: int, unit: float) -> str:
    return f"{_figure(before / unit)} → {_figure(after / unit)}" if before != after else _figure(after / unit)


def _figure(value: float) -> str:
    """Three digits, and no exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def measure(model: str, name: str, cut: Cut, rounds: int, threads: int) -> str:
    component = cut.component(name)
    with quiet():
        graph = trace(component, cut.profile, TARGETS["cpu"].opset)
    made = variants(graph, component, cut, threads)
    return table(model, name, made, interleave(made, inputs(component, cut), rounds))


def write(path: Path, text: str) -> None:
    """Put the text between the markers of a file, which are appended if it has none."""
    old = path.read_text(encoding="utf-8") if path.exists() else "# Results: rewrite rules\n"
    if BEGIN not in old:
        old = f"{old.rstrip()}\n\n{BEGIN}\n{END}\n"
    head, rest = old.split(BEGIN)
    path.write_text(f"{head}{BEGIN}\n{text}\n{END}{rest.split(END)[1]}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", help="models, or model/component")
    parser.add_argument("--write", type=Path)
    given = parser.parse_args()
    chosen = [s for s in SUBJECTS if not given.only or s[0] in given.only or "/".join(s) in given.only]
    parts = [
        f"{machine()}, {given.threads} threads, ONNX Runtime {ort.__version__}, Python {platform.python_version()}; "
        f"FP32, batch 1, random weights, {given.rounds} rounds, load average {os.getloadavg()[0]:.1f} before the run; "
        "`python benchmarks/rules.py`."
    ]
    for model in dict.fromkeys(model for model, _ in chosen):
        cut = build(model)
        for name in [name for of, name in chosen if of == model]:
            parts.append(measure(model, name, cut, given.rounds, given.threads))
            print(parts[-1], flush=True)
            gc.collect()
    if given.write:
        write(given.write, "\n\n".join(parts))


if __name__ == "__main__":
    main()
