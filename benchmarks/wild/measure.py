"""Measurements of one module: its cut, rules, parity at each precision, engines, and speed."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from perceiver_deploy.api.inspect import inspect
from perceiver_deploy.api.options import ExportOptions
from perceiver_deploy.sources.source import blueprint, resolve
from perceiver_exporters.component import Blueprint
from perceiver_exporters.cutting.call import Called, tensors
from perceiver_exporters.dynamic_sizes import with_ranges
from perceiver_exporters.engines import build
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.quiet import quiet
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_exporters.reference import Reference
from perceiver_runtime import open_session, verify
from perceiver_runtime.benchmark.statistics import Ratio, ratio
from perceiver_runtime.benchmark.timing import interleave
from perceiver_runtime.errors import PerceiverError
from perceiver_runtime.format.ranges import BATCH
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.tensors import Array, Range
from wild.entry import Entry, Feeds, drawn

import onnxruntime as ort

PRECISIONS = ("fp32", "fp16", "int8")
CALIBRATION, GOLDEN, EVALUATION = (range(0, 8), range(8, 10), range(10, 14))
"""Seeds of the batches, all disjoint."""
ENGINE_BATCH = Range(1, 1, 8)


@dataclasses.dataclass
class Result:
    """What is known of one module; `failed` says at which step it ended, and why."""

    name: str
    package: str
    size: str
    kind: str
    note: str = ""
    parameters: int = 0
    steps: tuple[tuple[str, int], ...] = ()
    one_component: str = ""
    split: float | None = None
    rules: tuple[str, ...] = ()
    flops: tuple[int, int] = (0, 0)
    parity: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    rtx: dict[str, str] = dataclasses.field(default_factory=dict)
    milliseconds: dict[str, float] = dataclasses.field(default_factory=dict)
    faster: dict[str, Ratio] = dataclasses.field(default_factory=dict)
    threads: int = 1
    rounds: int = 0
    load: float = 0.0
    plain_failed: str = ""
    failed: str = ""


def measure(entry: Entry, rounds: int, say: Callable[[str], None], known: Result | None = None) -> Result:
    """All measurements of an entry, or the speed alone of one whose result is known; what fails is stated there."""
    result = known or Result(entry.name, entry.package, entry.size, entry.kind, entry.note)
    torch.set_num_threads(1)
    try:
        module = drawn(entry.make())
        result.parameters = sum(p.numel() for p in module.parameters())
        made = _cut(entry, module, result)
        say(f"{result.steps} {result.one_component} split {result.split}")
        with tempfile.TemporaryDirectory() as folder:
            bundles = _bundles(made, Path(folder), result, speed_alone=known is not None)
            _describe(bundles["cpu fp32"], result)
            if known is None:
                _parity(entry, module, bundles, result, say)
                _engines(bundles, result, say)
            if rounds:
                _speed(entry, module, bundles["cpu fp32"], Path(folder), rounds, result)
                say(f"{result.milliseconds} {result.faster}")
    except Exception as error:  # a row of the table, whatever it was
        result.failed = result.failed or f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"
        say(result.failed)
    return result


def batch(entry: Entry, seed: int, rows: int | None = None) -> Feeds:
    """Inputs of the module's kind; entries that are no arrays are constants."""
    return entry.inputs(np.random.default_rng(seed), rows or entry.rows)


def _arrays(feeds: Feeds) -> Feeds:
    return {name: value for name, value in feeds.items() if isinstance(value, np.ndarray)}


def _eager(module: nn.Module, feeds: Feeds) -> dict[str, Array]:
    called = Called(module, feeds).eval()
    with torch.no_grad():
        values = called(*tensors(feeds).values())
    return {name: value.numpy() for name, value in zip(called.seen.outputs, values, strict=True)}


def _cut(entry: Entry, module: nn.Module, result: Result) -> Blueprint:
    """The generic path: an example call, and what of its sizes varies."""
    example = batch(entry, GOLDEN[0])
    model = resolve(module, ExportOptions(inputs=example, dynamic=entry.dynamic, ranges=entry.ranges))
    result.one_component = "; ".join(model.notes).partition(": one component: ")[2]
    made = blueprint(model)
    result.steps = tuple((step.component, step.repeat) for step in made.cut.pipeline.steps)
    values = Reference(made.cut).run(_arrays(example)).values
    expected = _eager(module, example)
    shown = made.cut.pipeline.aliases
    result.split = max(relative_l2(values[shown.get(name, name)], array) for name, array in expected.items())
    return dataclasses.replace(
        made,
        golden=tuple(_arrays(batch(entry, seed)) for seed in GOLDEN),
        calibration=tuple(_arrays(batch(entry, seed)) for seed in CALIBRATION),
        golden_origin=entry.kind,
    )


def _bundles(made: Blueprint, folder: Path, result: Result, *, speed_alone: bool) -> dict[str, Path]:
    """FP32 for processors, and unless only speed is measured all precisions for TensorRT-RTX."""
    traces, paths = SharedTraces(), {}
    small = with_ranges(made, {BATCH: ENGINE_BATCH}) if BATCH in made.cut.profile.dimensions else made
    for target, precision in (("cpu", "fp32"), *(("rtx", p) for p in PRECISIONS if not speed_alone)):
        key = f"{target} {precision}"
        try:
            export_bundle(made if target == "cpu" else small, folder / key, precision, target, tracer=traces)
            paths[key] = folder / key
        except PerceiverError as error:
            if target == "cpu":
                raise
            result.parity[precision] = {"failed": str(error)[:300]}
    return paths


def _describe(bundle: Path, result: Result) -> None:
    """Rules that were applied, and FLOPs of a run at OPT sizes without and with them."""
    outcomes = inspect(bundle, rules=True).rules or {}
    repeats = dict(result.steps)
    result.rules = tuple(dict.fromkeys(o.rule for each in outcomes.values() for o in each if o.applied))
    before = sum(each[0].before.flops * repeats[name] for name, each in outcomes.items() if each)
    after = sum(each[-1].after.flops * repeats[name] for name, each in outcomes.items() if each)
    result.flops = (before, after)


def _parity(
    entry: Entry, module: nn.Module, bundles: Mapping[str, Path], result: Result, say: Callable[[str], None]
) -> None:
    """Distance of each bundle to PyTorch on inputs that no step has seen, and the bundle's own check."""
    feeds = [batch(entry, seed) for seed in EVALUATION]
    expected = _joined([_eager(module, each) for each in feeds])
    for precision in PRECISIONS:
        path = bundles.get("cpu fp32" if precision == "fp32" else f"rtx {precision}")
        if path is None:
            continue
        with open_session(path, backend="onnxruntime", threads=1) as session:
            got = _joined([session.run(_arrays(each)) for each in feeds])
        result.parity[precision] = {
            "rel_l2": max(relative_l2(got[name], expected[name]) for name in expected),
            "centred": max(_centred(expected[name], got[name]) for name in expected),
            "verified": verify(path, backend="onnxruntime", threads=1).passed,
        }
        say(f"{precision} {result.parity[precision]}")


def _centred(expected: Array, got: Array) -> float:
    """The distance over what differs between rows; 0 for outputs that are the same in all rows."""
    spread = float(np.linalg.norm(expected - expected.mean(axis=0)))
    return float(np.linalg.norm(got - expected)) / spread if spread else 0.0


def _joined(outputs: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([each[name] for each in outputs]) for name in outputs[0]}


def _engines(bundles: Mapping[str, Path], result: Result, say: Callable[[str], None]) -> None:
    for precision in PRECISIONS:
        if (path := bundles.get(f"rtx {precision}")) is None:
            continue
        try:
            build(path, "rtx")
            result.rtx[precision] = "built"
        except PerceiverError as error:
            result.rtx[precision] = str(error)[:300]
        say(f"rtx {precision}: {result.rtx[precision][:200]}")


def _speed(entry: Entry, module: nn.Module, bundle: Path, folder: Path, rounds: int, result: Result) -> None:
    """One row per call, one thread, FP32: PyTorch, ONNX Runtime on PyTorch's own export, and the bundle, in turn."""
    feeds = batch(entry, EVALUATION[0], 1)
    arrays, called, given = _arrays(feeds), Called(module, feeds).eval(), tuple(tensors(feeds).values())

    def eager() -> None:
        with torch.no_grad():
            called(*given)

    calls: dict[str, Callable[[], object]] = {"torch": eager}
    result.plain_failed = ""
    try:
        calls["plain"] = _plain(called, given, list(arrays.values()), folder / "plain.onnx")
    except Exception as error:  # PyTorch's exporter, or ONNX Runtime on what it wrote: said in the table
        result.plain_failed = f"{type(error).__name__}: {str(error).splitlines()[0].replace(str(folder), '')[:200]}"
    result.load, result.threads, result.rounds = round(os.getloadavg()[0], 1), 1, rounds
    with open_session(bundle, backend="onnxruntime", threads=1) as session:
        times = interleave({**calls, "bundle": lambda: session.run(arrays)}, rounds)
    result.milliseconds = {name: float(np.median(each)) for name, each in times.items()}
    result.faster = {name: ratio(times[name], times["bundle"]) for name in calls}


def _plain(
    called: Called, given: tuple[torch.Tensor, ...], arrays: Sequence[Array], path: Path
) -> Callable[[], object]:
    """ONNX Runtime on PyTorch's own export at these sizes."""
    with quiet(), torch.no_grad():
        program = torch.onnx.export(called, given, opset_version=20, dynamo=True, verbose=False)
        assert program is not None
        program.save(path, external_data=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    plain = ort.InferenceSession(path, options, ["CPUExecutionProvider"])
    named = dict(zip((i.name for i in plain.get_inputs()), arrays, strict=True))
    return lambda: plain.run(None, named)
