"""What the benchmarks share: results with the machine and versions they hold for, peers of a bundle, peak memory.

A result is `benchmarks/results/NAME.json`; `benchmarks/tables.py` makes the tables of docs/performance.md from them.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from perceiver_deploy.source import Model, blueprint
from perceiver_deploy.timing import Call, Ratio, interleave, ratio
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import export_bundle
from perceiver_exporters.quiet import quiet
from perceiver_exporters.trace import SharedTraces
from perceiver_runtime.machine import machine
from perceiver_runtime.schema import encode
from perceiver_runtime.tensors import Array

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "onnxruntime", "openvino", "transformers", "numpy")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8")
Feeds = Mapping[str, Array]


@dataclasses.dataclass(frozen=True)
class Row:
    """One variant: median milliseconds, and how many times faster it is than each of its references."""

    variant: str
    milliseconds: float
    ratios: Mapping[str, Ratio]


def compare(calls: Mapping[str, Call], references: tuple[str, ...], rounds: int, warmup: int = 1) -> list[Row]:
    """Time the calls in turn; a ratio is reference time / variant time."""
    times = interleave(calls, rounds, warmup)
    present = [name for name in references if name in times]
    return [
        Row(name, float(np.median(each)), {r: ratio(times[r], each) for r in present if r != name})
        for name, each in times.items()
    ]


def write(name: str, content: Mapping[str, Any]) -> Path:
    """Record a result with the machine, its load before the run, and the versions."""
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    stated = {"date": f"{datetime.now(timezone.utc):%Y-%m-%d}", "machine": described(), "versions": versions()}
    path.write_text(json.dumps({**stated, **encode(content)}, indent=2) + "\n", encoding="utf-8")
    print(f"{path}", flush=True)
    return path


def described() -> dict[str, Any]:
    """The machine, and what of its instructions decides about speed."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    flags = next(set(line.split()) for line in lines if line.startswith("flags"))
    return {
        "name": machine(),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "load": round(os.getloadavg()[0], 1),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that are compared."""
    installed = {d.name: d.version for d in metadata.distributions()}
    return {name: installed[name] for name in PACKAGES if name in installed}


def random_weights(model: Model) -> Model:
    """Give biases and normalisations values that a trained model could have: a fresh model's are all 0 and 1."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.module.requires_grad_(False)
    return model


def bundles(model: Model, directory: Path, precisions: tuple[str, ...]) -> dict[str, Path]:
    """A bundle at each precision. Without real data INT8 takes its ranges from the golden inputs: speed only."""
    made, traces = _calibrated(blueprint(model)), SharedTraces()
    paths = {precision: directory / f"{model.name}-{precision}" for precision in precisions}
    for precision, path in paths.items():
        if not path.exists():
            export_bundle(made, path, precision, tracer=traces, progress=print)
    return paths


def plain_export(module: torch.nn.Module, inputs: Feeds, path: Path) -> Path:
    """What a user has without this project: the whole module through PyTorch's exporter, at these sizes."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        arguments = tuple(torch.from_numpy(np.array(array)) for array in inputs.values())
        with quiet(), torch.no_grad():
            program = torch.onnx.export(
                module.eval(), arguments, input_names=list(inputs), opset_version=20, dynamo=True, verbose=False
            )
            assert program is not None
            program.save(path, external_data=True)
    return path


def plain_onnxruntime(path: Path, inputs: Feeds, threads: int) -> Call:
    """A plain ONNX Runtime session on that export."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    known = {node.name for node in session.get_inputs()}
    return lambda: session.run(None, {name: array for name, array in inputs.items() if name in known})


def plain_openvino(path: Path, inputs: Feeds, threads: int) -> Call:
    """OpenVINO as its users run it, on that export: its own default precision, which is bfloat16 where there is any."""
    import openvino

    options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.compile_model(path, "CPU", options)
    known = {name for port in compiled.inputs for name in port.names}
    request, given = compiled.create_infer_request(), {n: a for n, a in inputs.items() if n in known}
    return lambda: request.infer(given)


def markdown(rows: list[Row]) -> str:
    """A table of rows."""
    names = list(dict.fromkeys(r for row in rows for r in row.ratios))
    head = f"| Variant | ms | {' | '.join(f'times faster than {n}' for n in names)} |"
    lines = [head, f"|---|---:|{'---:|' * len(names)}"]
    lines += [
        f"| {row.variant} | {row.milliseconds:.3g} | {' | '.join(str(row.ratios.get(n, '')) for n in names)} |"
        for row in rows
    ]
    return "\n".join(lines)


def _calibrated(made: Blueprint) -> Blueprint:
    return made if made.calibration else dataclasses.replace(made, calibration=made.golden)
