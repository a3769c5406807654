"""A released model beside its peers on this CPU: torch eager and compiled, ONNX Runtime and OpenVINO, INT8 included.

    python benchmarks/peers.py NAME DIRECTORY [--rounds 10] [--precisions fp32 int8-reduced ...] [--skip VARIANT ...]
        [--prepare] [--label vnni]

Random weights, batch 1, all variants alternating, end to end from arrays to arrays; each with its distance from the
model in FP64. A precision is a bundle's, or a variant of record.py's. DIRECTORY keeps the bundles and the peers'
graphs; `--prepare` makes them without timing. OpenVINO's INT8 needs NNCF (see peer_variants.py) and is left out
without. Writes benchmarks/results/peers-NAME.json, or peers-NAME-LABEL.json for another kind of processor.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from peer_variants import Feeds, dynamic_onnxruntime, static_onnxruntime, static_openvino
from record import Row, bundles, compare, markdown, random_weights, write

from perceiver_deploy.peers import PEERS, Workload
from perceiver_deploy.peers.onnx_runtimes import plain_export, run_onnxruntime, run_openvino
from perceiver_deploy.peers.torch_calls import eager_call
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.source import blueprint, resolve
from perceiver_runtime import UnavailableError, open_session
from perceiver_runtime.benchmark.timing import Call
from perceiver_runtime.format.ranges import BATCH
from perceiver_runtime.measure.compare import relative_l2
from perceiver_runtime.tensors import Array

BACKENDS = ("onnxruntime", "openvino", "openvino-bf16")
PRECISIONS = ("fp32", "int8", "int8-attention", "int8-reduced", "int8-dynamic", "int8-dynamic-reduced")
REFERENCES = ("torch eager", "plain ONNX Runtime")
FP32 = (*REFERENCES, "torch.compile", "plain OpenVINO")
Makers = Mapping[str, Callable[[], Call]]


@dataclass(frozen=True)
class PeerRow(Row):
    """And the relative L2 distance of its first output from the model's in FP64."""

    relative_l2: float


def peers(model: Model, feeds: Feeds, directory: Path, threads: int) -> Makers:
    """What a user has without this project. `plain OpenVINO` is FP32; its own default is bf16 where there is any."""
    work = Workload(model, feeds, threads, directory / model.name)
    plain = plain_export(work)
    return {
        "torch eager": lambda: PEERS["torch"].make(work),
        "torch.compile": lambda: PEERS["torch-compile"].make(work),
        "plain ONNX Runtime": lambda: PEERS["onnxruntime"].make(work),
        "plain ONNX Runtime, static int8": lambda: run_onnxruntime(static_onnxruntime(plain, feeds), feeds, threads),
        "plain ONNX Runtime, dynamic int8": lambda: run_onnxruntime(dynamic_onnxruntime(plain), feeds, threads),
        "plain OpenVINO": lambda: PEERS["openvino"].make(work),
        "plain OpenVINO, bf16": lambda: run_openvino(plain, feeds, threads, "bf16"),
        "plain OpenVINO, static int8": lambda: run_openvino(static_openvino(plain, feeds), feeds, threads),
    }


def sessions(paths: Mapping[str, Path], feeds: Feeds, threads: int) -> Makers:
    """A session of each bundle on each backend."""
    return {
        f"bundle {precision}, {backend}": lambda p=path, b=backend: session_call(p, b, feeds, threads)
        for precision, path in paths.items()
        for backend in BACKENDS
    }


def session_call(bundle: Path, backend: str, feeds: Feeds, threads: int) -> Call:
    session = open_session(bundle, backend, threads)
    return lambda: session.run(feeds)


def first_output(answer: object) -> Array:
    """Of what a module, a runtime or a session returns."""
    values = list(answer.values()) if isinstance(answer, Mapping) else answer
    return np.asarray(values[0] if isinstance(values, (list, tuple)) else values)


def exact(model: Model, feeds: Feeds) -> Array:
    """The model's first output in FP64."""
    double = {name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in feeds.items()}
    work = Workload(replace(model, module=copy.deepcopy(model.module).double()), double, 1, Path())
    return first_output(eager_call(work)())


def made(make: Callable[[], Call]) -> Call | None:
    """The call, or None where this machine lacks what it needs."""
    try:
        return make()
    except UnavailableError as error:
        print(error, flush=True)
        return None


def first_row(model: Model) -> Feeds:
    """The first row of the golden inputs, of those that the model's own run reads."""
    blue = blueprint(model)
    sample, specs = blue.golden[0], blue.cut.pipeline.inputs
    return {s.name: sample[s.name][:1] if BATCH in s.shape else sample[s.name] for s in specs if s.name in sample}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precisions", nargs="*", default=list(PRECISIONS))
    parser.add_argument("--skip", nargs="*", default=[], help="variants whose names begin so")
    parser.add_argument("--prepare", action="store_true", help="make what DIRECTORY keeps and time nothing")
    parser.add_argument("--label", help="of the kind of processor, where results of another kind are to stay")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = random_weights(resolve(given.name))
    feeds = first_row(model)
    others = peers(model, feeds, given.directory, given.threads)
    ours = sessions(bundles(model, given.directory, tuple(given.precisions)), feeds, given.threads)
    makers = {n: make for n, make in {**others, **ours}.items() if not n.startswith(tuple(given.skip))}
    if given.prepare:
        for make in makers.values():
            made(make)
        return
    calls = {name: call for name, make in makers.items() if (call := made(make)) is not None}
    groups = {
        "best FP32 peer": FP32,
        "best of OpenVINO": [name for name in others if "OpenVINO" in name],
        "best peer": tuple(others),
    }
    reference = exact(model, feeds)
    errors = {name: relative_l2(reference, first_output(call())) for name, call in calls.items()}
    timed = compare(calls, REFERENCES, given.rounds, groups)
    rows = [PeerRow(**vars(row), relative_l2=errors[row.variant]) for row in timed]
    print(markdown(rows))
    name = "-".join(filter(None, ("peers", given.name, given.label)))
    write(name, {"rounds": given.rounds, "threads": given.threads, "batch": 1, "rows": rows})


if __name__ == "__main__":
    main()
