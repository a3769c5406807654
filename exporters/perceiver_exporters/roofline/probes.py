"""Short measurements of one machine: matrix products and calls through a backend, copies in memory."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from perceiver_runtime.backends.backend import Backend
from perceiver_runtime.bundle import file_entry, load_bundle, write_manifest
from perceiver_runtime.errors import UsageError
from perceiver_runtime.manifest import SCHEMA_VERSION, ComponentEntry, Manifest, Source
from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.tensors import Array, Profile, TensorSpec

ROWS, WIDTH, LAYERS = (256, 1024), 768, 2
"""Products of (rows, width) by (width, width): latents or inputs by a projection, large enough for the full rate."""
NODES = 33
ROUNDS, CALLS, SECONDS = 5, 3, 0.05
"""Rounds, and the least number of calls and of seconds of each."""
COPIED_BYTES = 128 << 20
"""Size of the array that is copied, if that is 4 times the largest cache or more."""
FLOATS = {"fp32": TensorProto.FLOAT, "fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
Nodes = tuple[list[onnx.NodeProto], list[onnx.TensorProto]]


def product_rate(backend: Backend, kind: str) -> float:
    """FLOP/s of matrix products with constant weights in one type, the largest over several sizes."""
    if kind not in (*FLOATS, "int8"):
        raise UsageError(f"ceilings: expected types of {', '.join((*FLOATS, 'int8'))}, got {kind}")
    nodes, constants = _integer_products() if kind == "int8" else _floating_products(FLOATS[kind])
    flops = {rows: 2 * rows * WIDTH * WIDTH * LAYERS for rows in ROWS}
    return max(flops[rows] / _seconds(backend, nodes, constants, (rows, WIDTH), flops[rows]) for rows in ROWS)


def starting_times(backend: Backend) -> tuple[float, float]:
    """Seconds to start one call, and one more node in it: of chains of nodes that compute next to nothing."""
    one, many = (_seconds(backend, *_chain(count), (1, 8), 0) for count in (1, NODES))
    node = max(0.0, (many - one) / (NODES - 1))
    return max(0.0, one - node), node


def copy_rate(threads: int, cache: int) -> float:
    """Bytes read plus bytes written per second while threads copy parts of an array that no cache holds."""
    size = max(COPIED_BYTES, 4 * cache)
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        seconds = _median(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))
    return 2 * size / seconds


def _floating_products(kind: int) -> Nodes:
    """Cast, products, cast."""
    nodes = [helper.make_node("Cast", ["x"], ["h0"], to=kind)]
    constants = []
    for layer in range(LAYERS):
        constants.append(helper.make_tensor(f"w{layer}", kind, (WIDTH, WIDTH), _weights(layer).ravel()))
        nodes.append(helper.make_node("MatMul", [f"h{layer}", f"w{layer}"], [f"h{layer + 1}"]))
    return [*nodes, helper.make_node("Cast", [f"h{LAYERS}"], ["y"], to=TensorProto.FLOAT)], constants


def _integer_products() -> Nodes:
    """As a bundle for processors has them: activations of one scale in uint8, weights in int8 per output channel."""
    scalars = {"scale": np.float32(0.02), "zero": np.uint8(128)}
    constants = [numpy_helper.from_array(np.array(value), name) for name, value in scalars.items()]
    constants.append(numpy_helper.from_array(np.full(WIDTH, 1e-3, np.float32), "w_scale"))
    constants.append(numpy_helper.from_array(np.zeros(WIDTH, np.int8), "w_zero"))
    nodes, last = [], "x"
    for layer in range(LAYERS):
        weights = np.clip(np.rint(_weights(layer) * 1e3), -127, 127).astype(np.int8)
        constants.append(numpy_helper.from_array(weights, f"w{layer}"))
        made = "y" if layer == LAYERS - 1 else f"h{layer}"
        nodes += [
            helper.make_node("QuantizeLinear", [last, "scale", "zero"], [f"q{layer}"]),
            helper.make_node("DequantizeLinear", [f"q{layer}", "scale", "zero"], [f"d{layer}"]),
            helper.make_node("DequantizeLinear", [f"w{layer}", "w_scale", "w_zero"], [f"dw{layer}"], axis=1),
            helper.make_node("MatMul", [f"d{layer}", f"dw{layer}"], [made]),
        ]
        last = made
    return nodes, constants


def _chain(count: int) -> Nodes:
    """Softmax after softmax, which no backend fuses."""
    names = ["x", *(f"h{i}" for i in range(1, count)), "y"]
    return [helper.make_node("Softmax", [a], [b]) for a, b in itertools.pairwise(names)], []


def _weights(seed: int) -> Array:
    weights: Array = np.random.default_rng(seed).standard_normal((WIDTH, WIDTH), np.float32)
    return weights / np.float32(WIDTH**0.5)


def _seconds(
    backend: Backend, nodes: Sequence[Any], constants: Sequence[Any], shape: tuple[int, int], flops: int
) -> float:
    """Time of a graph from x to y of one shape, loaded as sessions load the components of a bundle."""
    specs = tuple(TensorSpec(name, "float32", shape) for name in ("x", "y"))
    infos = [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, shape) for spec in specs]
    graph = helper.make_graph(list(nodes), "probe", infos[:1], infos[1:], list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    precision = "int8" if any(node.op_type == "QuantizeLinear" for node in nodes) else "fp32"
    entry = ComponentEntry("probe", "probe.onnx", specs[:1], specs[1:], precision, 0, flops)
    x = np.random.default_rng(9).standard_normal(shape, np.float32)
    with tempfile.TemporaryDirectory() as folder:
        with load_bundle(_bundle(Path(folder), model, entry)) as bundle:
            run = backend.load(bundle, entry).bind({"x": x}, {"y": np.empty(shape, np.float32)})
        return _median(run)


def _bundle(folder: Path, model: onnx.ModelProto, entry: ComponentEntry) -> Path:
    onnx.save(model, folder / entry.onnx)
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        source=Source("probe", "probe", "", {}, pretrained=False),
        precision=entry.precision,
        target="cpu",
        opset=20,
        components=(entry,),
        pipeline=Pipeline(entry.inputs, entry.outputs, (Step("probe", {"x": "x"}, {"y": "y"}, "encode"),)),
        profiles=(Profile("default", {}),),
        tolerances=(),
        golden=(),
        tools={},
        files={entry.onnx: file_entry(folder / entry.onnx)},
    )
    write_manifest(folder, manifest)
    return folder


def _median(call: Callable[[], object]) -> float:
    """Median over rounds of the fastest call of each: on a busy machine few calls run without interruption."""
    call()
    return statistics.median(_fastest(call) for _ in range(ROUNDS))


def _fastest(call: Callable[[], object]) -> float:
    times: list[float] = []
    while len(times) < CALLS or sum(times) < SECONDS:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)
