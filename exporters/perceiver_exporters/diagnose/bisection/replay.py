"""Replays: a failure in a directory of its own, with inputs, expected outputs, and what to run.

| File | Content |
|---|---|
| `replay.json` | a `Replay` |
| `inputs.safetensors`, `expected.safetensors` | arrays by name |
| `model.onnx` | the subgraph between them; absent where the bundle itself is run |
| `inputs.json`, `expected.json` | the same arrays for `polygraphy run`, with `model.onnx` only |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from safetensors.numpy import save

from perceiver_exporters.diagnose.bisection.values import OpenGraph
from perceiver_exporters.precision.widen import runnable_bundle
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.errors import BundleError
from perceiver_runtime.escapes import command_line
from perceiver_runtime.execution.opening import open_session
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.format.outputs import replacing
from perceiver_runtime.format.safetensors import load_tensors
from perceiver_runtime.measure.compare import Bound, ParityReport, compare
from perceiver_runtime.measure.parity import PIPELINE
from perceiver_runtime.tensors import Array

RECORD, MODEL, INPUTS, EXPECTED = "replay.json", "model.onnx", "inputs.safetensors", "expected.safetensors"


@dataclass(frozen=True)
class Replay:
    """What is replayed: a component of a bundle, its pipeline, or the subgraph that ends at `node`.

    `bounds` has the bound of each expected array.
    """

    bundle: str
    component: str
    backend: str
    bounds: Mapping[str, Bound]
    node: str = ""


def write_replay(
    directory: Path,
    replay: Replay,
    inputs: Mapping[str, Array],
    expected: Mapping[str, Array],
    model: onnx.ModelProto | None = None,
) -> str:
    """Write the directory, its record last, and return the command that replays it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / RECORD).unlink(missing_ok=True)
    for name, arrays in ((INPUTS, inputs), (EXPECTED, expected)):
        (directory / name).write_bytes(save({k: np.ascontiguousarray(v) for k, v in arrays.items()}))
    if model is not None:
        onnx.save(model, directory / MODEL)
        _write_for_polygraphy(directory, inputs, expected)
    with replacing(directory / RECORD) as partial:
        partial.write_text(strict_json.dumps(schema.encode(replay)) + "\n", encoding="utf-8")
    return command_line("perceiver-export", "replay", directory)


def read_replay(directory: Path) -> Replay:
    """Read the description of a replay. Raises BundleError if the directory has none."""
    path = directory / RECORD
    try:
        content = strict_json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BundleError(f"{directory}: expected a replay written by bisect or verify: {error}") from error
    return schema.decode(Replay, content, str(path))


def run_replay(directory: str | Path) -> tuple[ParityReport, ...]:
    """Run a replay that `verify` or `bisect` wrote, and compare its outputs with the expected ones.

    Args:
        directory: Directory of the replay.

    Returns:
        One report for each expected output.

    Raises:
        BundleError: The directory holds no replay, or it or the bundle is damaged.
        UnavailableError: The backend of the replay is not on this machine.
    """
    directory = Path(directory)
    replay = read_replay(directory)
    inputs, expected = load_tensors(directory / INPUTS), load_tensors(directory / EXPECTED)
    got = _run_part(directory, inputs, expected) if replay.node else _run_bundle(replay, inputs)
    if missing := [name for name in expected if name not in got or name not in replay.bounds]:
        raise BundleError(f"{directory}: nothing gives {', '.join(missing)}, or nothing bounds it; write it again")
    return tuple(
        compare(
            array,
            got[name],
            component=replay.component,
            tensor=name,
            mode="chained" if replay.component == PIPELINE else "teacher-forced",
            bound=replay.bounds[name],
        )
        for name, array in expected.items()
    )


def _run_part(directory: Path, inputs: Mapping[str, Array], expected: Mapping[str, Array]) -> dict[str, Array]:
    try:
        return OpenGraph(onnx.load(directory / MODEL)).run(inputs, expected)
    except Exception as error:  # whatever protobuf, onnx and ONNX Runtime raise for a damaged graph
        raise BundleError(f"{directory / MODEL}: can't be run: {error}; write the replay again") from error


def _run_bundle(replay: Replay, inputs: Mapping[str, Array]) -> dict[str, Array]:
    bundle = load_bundle(replay.bundle)
    with (
        runnable_bundle(bundle, replay.backend) as runnable,
        open_session(runnable, replay.backend, check_finite=False) as session,
    ):
        if replay.component == PIPELINE:
            return {**session.encode(inputs), **session.run(inputs)}
        return session.run_component(replay.component, inputs)


def _write_for_polygraphy(directory: Path, inputs: Mapping[str, Array], expected: Mapping[str, Array]) -> None:
    from polygraphy.comparator import IterationResult, RunResults
    from polygraphy.json import save_json
    from polygraphy.logger import G_LOGGER

    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        save_json([dict(inputs)], str(directory / "inputs.json"))
        results = RunResults()
        results.add([IterationResult(dict(expected), runner_name="reference")], runner_name="reference")
        results.save(str(directory / "expected.json"))
