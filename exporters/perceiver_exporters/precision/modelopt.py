"""FP8 (E4M3) and weight-only INT4 by NVIDIA ModelOpt, in an environment of its own.

ModelOpt's ONNX part pins older versions of onnx and ONNX Runtime. It runs in a separate interpreter, named by
`$PERCEIVER_MODELOPT_PYTHON`, and returns a graph.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from perceiver_exporters.component import Cut
from perceiver_exporters.precision.emulation import Product, calibrate_sites, emulate_products
from perceiver_exporters.precision.integers.layers import weighted
from perceiver_exporters.precision.integers.plan import ComponentPlan, Plan
from perceiver_exporters.precision.integers.scheme import Scheme
from perceiver_exporters.precision.precision import Precision, Request
from perceiver_exporters.reference import Feeds, Scope
from perceiver_runtime.errors import CheckError, UnavailableError
from perceiver_runtime.tensors import Array

PYTHON = "PERCEIVER_MODELOPT_PYTHON"
SCRIPT = Path(__file__).with_name("modelopt_script.py")
REMEDY = (
    "python -m venv modelopt && modelopt/bin/pip install 'nvidia-modelopt[onnx]', then set "
    f"{PYTHON}=modelopt/bin/python"
)
FEEDS = 8
"""Calibration feeds passed on; ModelOpt keeps them in memory."""

BLOCK = 32
"""Input channels that share an INT4 scale."""

STORED = {"fp8": (ir.DataType.FLOAT8E4M3FN, 2), "int4": (ir.DataType.INT4, 1)}
"""By mode: the stored type, and how many of a product's operands have it, counted from the second."""


@dataclass(frozen=True)
class ModelOptFormat(Precision):
    """A format that ModelOpt writes: `fp8` or `int4`, which name its modes."""

    calibrated: bool = True

    def rewrite(self, model: ir.Model, request: Request) -> ir.Model:
        """Quantise the products with a weight; returns a new graph.

        Raises:
            UnavailableError: ModelOpt's interpreter is not there, or can't import it.
            CheckError: ModelOpt refuses the graph.
        """
        nodes = [str(node.name) for node in weighted(model.graph)]
        return quantize(model, request, self.name, nodes) if nodes else model

    def emulate(self, cut: Cut, calibration: Iterable[Feeds], scheme: Scheme, plan: Plan | None = None) -> Scope:
        """FP8: activations per tensor and weights per channel; INT4: weights in blocks of input channels."""
        if self.name == "int4":
            return emulate_products(cut, lambda _: _compute_int4)
        decided = plan if plan is not None else calibrate_sites(cut, calibration)
        return emulate_products(cut, lambda component: functools.partial(_compute_fp8, decided[component]))

    def prove(self, node: ir.Node) -> bool:
        """Whether the operands that the format stores come from a DequantizeLinear of its type."""
        dtype, stored = STORED[self.name]
        sources = [value.producer() if value is not None else None for value in node.inputs[2 - stored : 2]]
        return all(
            s is not None and s.op_type == "DequantizeLinear" and s.inputs[0] is not None and s.inputs[0].dtype == dtype
            for s in sources
        )


def _compute_fp8(plan: ComponentPlan, product: Product) -> Tensor:
    low, high = plan.statistics.sites[product.site].bounds("minmax")
    weight, axis = product.weight, product.channel_axis
    peaks = weight.abs().amax([i for i in range(weight.ndim) if i != axis], keepdim=True)
    return product.run(round_fp8(product.x, torch.tensor(max(-low, high))), round_fp8(weight, peaks))


def _compute_int4(product: Product) -> Tensor:
    """ModelOpt skips convolutions."""
    return product.run(product.x, product.weight if product.convolves else round_int4(product.weight))


def round_fp8(values: Tensor, peak: Tensor) -> Tensor:
    """Round to E4M3, scaled so that `peak` becomes its largest number, 448."""
    scale = torch.where(peak > 0, peak / 448, torch.ones_like(peak))
    return (values / scale).clamp(-448, 448).to(torch.float8_e4m3fn).to(values.dtype) * scale


def round_int4(weight: Tensor) -> Tensor:
    """A weight (K, N) to 16 levels, with one scale for each BLOCK input channels of an output channel."""
    blocks = []
    for start in range(0, len(weight), BLOCK):
        block = weight[start : start + BLOCK]
        scale = (block.abs().amax(0, keepdim=True) / 7).clamp_min(1e-12)
        blocks.append((block / scale).round().clamp(-8, 7) * scale)
    return torch.cat(blocks)


def quantize(model: ir.Model, request: Request, mode: str, nodes: Sequence[str]) -> ir.Model:
    """Have ModelOpt quantise the named products. Raises as `ModelOptFormat.rewrite` does."""
    python = interpreter()
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        ir.save(model, directory / "model.onnx")
        _save(directory / "calibration.npz", _joined(itertools.islice(request.calibration(), FEEDS)))
        job = {
            "model": str(directory / "model.onnx"),
            "result": str(directory / "result.onnx"),
            "calibration": str(directory / "calibration.npz"),
            "mode": mode,
            "nodes": nodes,
            "block": BLOCK,
        }
        (directory / "job.json").write_text(json.dumps(job), encoding="utf-8")
        _run(python, directory / "job.json", request.component)
        made = ir.load(directory / "result.onnx")
        for value in made.graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = ir.tensor(value.const_value.numpy(), value.const_value.dtype, name=value.name)
    return _as_before(made, model)


def interpreter() -> str:
    """Path of the Python with ModelOpt. Raises UnavailableError if none is named or it does not exist."""
    named = os.environ.get(PYTHON)
    if not named:
        raise UnavailableError(f"fp8 and int4 need NVIDIA ModelOpt in an environment of its own: {REMEDY}")
    if not os.access(named, os.X_OK):
        raise UnavailableError(f"{PYTHON}: expected an interpreter, {named} is none: {REMEDY}")
    return named


def _run(python: str, job: Path, component: str) -> None:
    script = job.with_suffix(".py")  # Python looks beside a script first, and beside ours lies this module
    shutil.copyfile(SCRIPT, script)
    done = subprocess.run([python, str(script), str(job)], capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines()
    last = lines[-1] if lines else "no output on stderr"
    if done.returncode and "ModuleNotFoundError" in last:
        raise UnavailableError(f"{python} can't run ModelOpt: {last}; {REMEDY}")
    if done.returncode or not job.with_name("result.onnx").exists():
        raise CheckError(f"component {component}: ModelOpt made no graph (exit {done.returncode}): {last}")


def _joined(feeds: Iterable[Feeds]) -> dict[str, Array]:
    """Feeds as one, along their first axis."""
    given = list(feeds)
    return {name: np.concatenate([feed[name] for feed in given]) for name in given[0]} if given else {}


def _save(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write an .npz file. `numpy.savez` takes names for its own parameters, `allow_pickle` among them."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)


def _as_before(made: ir.Model, model: ir.Model) -> ir.Model:
    """Restore name, metadata and dynamic dimensions, which ModelOpt drops."""
    made.graph.name = model.graph.name
    made.metadata_props.update(model.metadata_props)
    for values, before in ((made.graph.inputs, model.graph.inputs), (made.graph.outputs, model.graph.outputs)):
        for value, known in zip(values, before, strict=True):
            value.shape = known.shape
    return made
