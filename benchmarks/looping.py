"""A block run several times (looped) beside a graph that contains it several times (unrolled).

    python benchmarks/looping.py DIRECTORY [NAME ...] [--precision fp32] [--rounds 30] [--threads 2]

A bundle stores a shared block once, and its session runs that graph repeatedly on buffers that are bound once. The
unrolled bundle repeats the block's nodes in one graph and shares their weights; the same runtime runs both. DIRECTORY
keeps the bundles, with random weights where none are shipped. Batch 1; writes results/looping.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from record import bundles, random_weights, write

from perceiver_deploy.sources.source import resolve
from perceiver_runtime import load_bundle, open_session
from perceiver_runtime.benchmark.statistics import Ratio, ratio
from perceiver_runtime.benchmark.timing import interleave
from perceiver_runtime.bundle import Bundle, file_entry, write_manifest
from perceiver_runtime.golden import load_golden
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.pipeline import Step

NAMES = ("fashion-perceiver", "vision-perceiver-conv")
LARGEST_ERROR = 1e-4
"""Relative L2 between the two, beyond which they would not be one function."""


@dataclass(frozen=True)
class Looped:
    """Medians of both in milliseconds; `ratio` is unrolled time / looped time, `error` the relative L2 between them."""

    model: str
    precision: str
    repeats: int
    looped_ms: float
    unrolled_ms: float
    ratio: Ratio
    error: float


def repeated(model: onnx.ModelProto, step: Step) -> onnx.ModelProto:
    """A graph whose nodes stand there once for each repetition; all read the same weights."""
    graph, nodes = model.graph, []
    outputs = {value.name for value in graph.output}
    made = [name for node in graph.node for name in node.output if name]
    names = {"": "", **{tensor.name: tensor.name for tensor in graph.initializer}}
    fed = {value.name: value.name for value in graph.input}
    for repetition in range(step.repeat):
        kept = outputs if repetition == step.repeat - 1 else ()
        now = {**names, **fed, **{name: name if name in kept else f"{repetition}/{name}" for name in made}}
        nodes += [_renamed(node, now) for node in graph.node]
        fed |= {target: now[source] for source, target in step.carry.items()}
    whole = onnx.ModelProto()
    whole.CopyFrom(model)
    whole.graph.ClearField("node")
    whole.graph.ClearField("value_info")
    whole.graph.node.extend(nodes)
    return whole


def _renamed(node: onnx.NodeProto, names: Mapping[str, str]) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.ClearField("name")
    copy.input[:] = [names[name] for name in node.input]
    copy.output[:] = [names[name] for name in node.output]
    return copy


def unrolled(bundle: Bundle, path: Path) -> Path:
    """The bundle with its repeated steps unrolled; the files of weights are the same ones."""
    shutil.rmtree(path, ignore_errors=True)
    manifest = bundle.manifest
    for relative in manifest.files:
        (path / relative).parent.mkdir(parents=True, exist_ok=True)
        os.link(bundle.file(relative), path / relative)
    for step in manifest.pipeline.steps:
        if step.repeat > 1:
            graph = path / manifest.component(step.component).onnx
            model = onnx.load(graph, load_external_data=False)
            graph.unlink()  # a link: what it names stays as it is
            onnx.save(repeated(model, step), graph)
    steps = tuple(replace(s, repeat=1, carry={}) if s.repeat > 1 else s for s in manifest.pipeline.steps)
    files = {relative: file_entry(path / relative) for relative in manifest.files}
    write_manifest(path, replace(manifest, pipeline=replace(manifest.pipeline, steps=steps), files=files))
    return path


def measured(name: str, precision: str, path: Path, rounds: int, threads: int) -> Looped:
    bundle = load_bundle(path)
    other = unrolled(bundle, path.with_name(f"{path.name}-unrolled"))
    feeds = {key: array[:1] for key, array in load_golden(bundle)[0].feeds.items()}
    with open_session(path, "onnxruntime", threads) as loop, open_session(other, "onnxruntime", threads) as flat:
        output = bundle.manifest.pipeline.outputs[0].name
        error = relative_l2(loop.run(feeds)[output], flat.run(feeds)[output])
        if error > LARGEST_ERROR:
            raise SystemExit(f"{name}: looped and unrolled differ by {error:.1e}, expected at most {LARGEST_ERROR:.0e}")
        times = interleave({"looped": lambda: loop.run(feeds), "unrolled": lambda: flat.run(feeds)}, rounds)
    looped, flattened = times["looped"], times["unrolled"]
    repeats = max(step.repeat for step in bundle.manifest.pipeline.steps)
    medians = float(np.median(looped)), float(np.median(flattened))
    return Looped(name, precision, repeats, *medians, ratio(flattened, looped), error)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("names", nargs="*", default=NAMES)
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    rows = []
    for name in given.names:
        model = resolve(name)
        known = model if model.pretrained else random_weights(model)
        path = bundles(known, given.directory, (given.precision,))[given.precision]
        rows.append(measured(name, given.precision, path, given.rounds, given.threads))
        print(rows[-1], flush=True)
    write("looping", {"rounds": given.rounds, "threads": given.threads, "batch": 1, "rows": rows})


if __name__ == "__main__":
    main()
