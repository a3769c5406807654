"""A bundle on ONNX Runtime's CUDA provider with every value on the device: plain, and captured as CUDA graphs.

    python benchmarks/gpu/onnxruntime_cuda.py BUNDLE [--runs 200] [--products]

Export the bundle at fp16 or bf16 first, for the target cuda. `--products` adds the same model with its attention as
products and a softmax, exported again from its source.

Each component is bound once to device memory that the next one reads; all variants copy feeds in and outputs out.
Outputs are compared with the golden sample before timing. Pipelines that run in chunks are refused: they need views
of device memory, which this script does not make.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_deploy.sources.reference import reference_of
from perceiver_deploy.sources.source import blueprint
from perceiver_exporters.export import export_bundle
from perceiver_exporters.rules import REWRITE_RULES
from perceiver_exporters.rules.attention.attention_form import ATTENTION_FORM
from perceiver_runtime import UsageError, load_bundle
from perceiver_runtime.benchmark.statistics import Distribution, Ratio, ratio
from perceiver_runtime.benchmark.timing import interleave
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.format.schema import encode
from perceiver_runtime.format.wiring import bind_symbols, value_specs
from perceiver_runtime.golden import load_golden
from perceiver_runtime.machine import machine
from perceiver_runtime.measure.compare import Bound, compare
from perceiver_runtime.pipeline import Step
from perceiver_runtime.tensors import Array

import onnxruntime as ort

PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


@dataclass(frozen=True)
class Measured:
    """Milliseconds per run without and with CUDA graphs, and the ratio with its 95% interval.

    `products` is with CUDA graphs too; `operator` how many times faster the bundle is than that.
    """

    plain: Distribution
    captured: Distribution
    speedup: float
    low: float
    high: float
    products: Distribution | None = None
    operator: Ratio | None = None


class DeviceSteps:
    """A bundle's steps bound to device memory at the sizes of some feeds."""

    def __init__(self, bundle: Bundle, feeds: dict[str, Array], device: str, *, capture: bool = False) -> None:
        pipeline = bundle.manifest.pipeline
        if chunked := [step.component for step in pipeline.steps if step.chunk]:
            raise UsageError(f"expected a pipeline without chunks, {', '.join(chunked)} runs in chunks")
        self._device, self._capture, self._shown = device, capture, pipeline.shown
        specs = value_specs(bundle.manifest)
        given = [specs[spec.name] for spec in pipeline.inputs]
        sizes = bind_symbols(given, {name: array.shape for name, array in feeds.items()}, "feeds")
        whole = {symbol: int(size) for symbol, size in sizes.items()}
        self.values = {name: self._allocate(spec.resolve(whole), spec.dtype) for name, spec in specs.items()}
        self._calls: list[Callable[[], None]] = []
        self._sessions = {c.name: self._open(bundle.file(c.onnx)) for c in bundle.manifest.components}
        for step in pipeline.steps:
            self._add(step)

    def run(self, feeds: dict[str, Array]) -> dict[str, Array]:
        """Inputs by name to outputs by name."""
        for name, array in feeds.items():
            self.values[name].update_inplace(array)
        for call in self._calls:
            call()
        return {name: self.values[value].numpy() for name, value in self._shown.items()}

    def _allocate(self, shape: tuple[int, ...], dtype: str) -> Any:
        return ort.OrtValue.ortvalue_from_shape_and_type(shape, np.dtype(dtype), self._device, 0)

    def _open(self, path: Path) -> Any:
        options = {"enable_cuda_graph": "1"} if self._capture else {}
        return ort.InferenceSession(str(path), providers=[(PROVIDERS[self._device], options)])

    def _add(self, step: Step) -> None:
        """Repetitions take turns between the value and a second buffer; an odd number of them ends with a copy."""
        session = self._sessions[step.component]
        inputs = {graph: self.values[value] for graph, value in step.inputs.items()}
        targets = {graph: self.values[value] for graph, value in step.outputs.items()}
        spare = {o: self._allocate(tuple(inputs[i].shape()), _dtype(inputs[i])) for o, i in step.carry.items()}
        for index in range(step.repeat):
            last = index == step.repeat - 1
            outputs = {**targets, **({} if last and not _overlap(inputs, targets) else spare)}
            self._calls.append(partial(self._run, session, _bound(session, inputs, outputs), len(self._calls) + 1))
            spare, inputs = (
                {o: inputs[i] for o, i in step.carry.items()},
                {**inputs, **{i: outputs[o] for o, i in step.carry.items()}},
            )
        for output, graph in step.carry.items():
            if output in step.outputs:
                self.values[step.outputs[output]] = inputs[graph]

    def _run(self, session: Any, binding: Any, graph: int) -> None:
        options = ort.RunOptions()
        if self._capture:
            options.add_run_config_entry("gpu_graph_id", str(graph))
        session.run_with_iobinding(binding, options)


def _bound(session: Any, inputs: dict[str, Any], outputs: dict[str, Any]) -> Any:
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)
    return binding


def _overlap(inputs: dict[str, Any], outputs: dict[str, Any]) -> bool:
    return any(a is b for a in inputs.values() for b in outputs.values())


def _dtype(value: Any) -> str:
    return {"tensor(float)": "float32", "tensor(float16)": "float16"}[value.data_type()]


def check(steps: DeviceSteps, bundle: Bundle, feeds: dict[str, Array], expected: dict[str, Array]) -> None:
    """Raise UsageError if the answers are not within the bundle's tolerances."""
    bounds = {t.tensor: Bound(t.rel_l2) for t in bundle.manifest.tolerances if t.component == "pipeline"}
    for name, array in steps.run(feeds).items():
        report = compare(expected[name], array, component="pipeline", tensor=name, mode="chained", bound=bounds[name])
        if not report.passed:
            raise UsageError(f"{name}: expected an error of at most {report.tolerance}, got {report.rel_l2}")


def with_products(bundle: Bundle, path: Path) -> Bundle:
    """The bundle's model exported again, all its rules applied but the one that fuses attention."""
    manifest = bundle.manifest
    source = blueprint(reference_of(bundle))
    rules = [rule for rule in REWRITE_RULES if rule is not ATTENTION_FORM]
    export_bundle(source, path, manifest.precision, manifest.target, rules=rules)
    return load_bundle(path)


def measured(bundle: Bundle, device: str, runs: int, products: Bundle | None = None) -> Measured:
    """The variants, checked and then timed in turn."""
    sample = load_golden(bundle)[0]
    feeds = {spec.name: np.ascontiguousarray(sample.feeds[spec.name]) for spec in bundle.manifest.pipeline.inputs}
    bundles = {"plain": bundle, "captured": bundle, **({"products": products} if products else {})}
    variants = {
        name: DeviceSteps(each, feeds, device, capture=name != "plain" and device == "cuda")
        for name, each in bundles.items()
    }
    for steps in variants.values():
        check(steps, bundle, feeds, dict(sample.values))
    times = interleave({name: partial(steps.run, feeds) for name, steps in variants.items()}, runs, 10)
    speedup = ratio(times["plain"], times["captured"])
    each = {name: Distribution.of(values) for name, values in times.items()}
    operator = ratio(times["products"], times["captured"]) if products else None
    return Measured(
        each["plain"], each["captured"], speedup.median, speedup.low, speedup.high, each.get("products"), operator
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--products", action="store_true", help="time attention as products and a softmax, too")
    given = parser.parse_args()
    if PROVIDERS["cuda"] not in ort.get_available_providers():
        raise SystemExit("expected onnxruntime-gpu and an NVIDIA GPU; this onnxruntime has no CUDA provider")
    bundle = load_bundle(given.bundle)
    with tempfile.TemporaryDirectory() as folder:
        products = with_products(bundle, Path(folder, "products")) if given.products else None
        result = measured(bundle, "cuda", given.runs, products)
    stated = {"precision": bundle.manifest.precision, "machine": machine(), "onnxruntime": ort.__version__}
    print(json.dumps({**stated, "transfers": "included", **encode(result)}, indent=2))


if __name__ == "__main__":
    main()
