"""FP8 (E4M3) and weight-only INT4 by NVIDIA ModelOpt, which lives in an environment of its own.

Its ONNX part pins older versions of onnx and ONNX Runtime than the rest of this project uses. So it is called as a
separate interpreter, named by `$PERCEIVER_MODELOPT_PYTHON`, and hands back a graph.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir

from perceiver_exporters.precision.integers.layers import weighted
from perceiver_exporters.precision.precision import Feeds, Request
from perceiver_runtime.errors import CheckError, UnavailableError
from perceiver_runtime.tensors import Array

PYTHON = "PERCEIVER_MODELOPT_PYTHON"
SCRIPT = Path(__file__).with_name("modelopt_script.py")
REMEDY = (
    "python -m venv modelopt && modelopt/bin/pip install 'nvidia-modelopt[onnx]', then set "
    f"{PYTHON}=modelopt/bin/python"
)
FEEDS = 8
"""Calibration feeds that are handed over; ModelOpt holds them in memory."""

BLOCK = 32
"""Weights along the input channels that share an INT4 scale."""


def rewrite(model: ir.Model, request: Request, mode: str) -> ir.Model:
    """Quantise the products with a weight; returns a new graph.

    Raises UnavailableError without ModelOpt's interpreter, or if that can't import it; CheckError if ModelOpt refuses.
    """
    nodes = [str(node.name) for node in weighted(model.graph)]
    if not nodes:
        return model
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
    """Path of the Python that has ModelOpt. Raises UnavailableError if none is named, or there is none."""
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
    last = lines[-1] if lines else "it said nothing"
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
    """The name, metadata, and open dimensions that ModelOpt does not keep."""
    made.graph.name = model.graph.name
    made.metadata_props.update(model.metadata_props)
    for values, before in ((made.graph.inputs, model.graph.inputs), (made.graph.outputs, model.graph.outputs)):
        for value, known in zip(values, before, strict=True):
            value.shape = known.shape
    return made
