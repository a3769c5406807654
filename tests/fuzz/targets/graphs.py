"""ONNX graphs: damaged bytes, and graphs of hostile structure with right bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tiny_bundles
from fuzz.targets.bundles import tiny
from fuzz.targets.reading import OfBytes, Once, typed
from onnx import TensorProto, helper, numpy_helper

from perceiver_runtime import load_bundle, open_session
from perceiver_runtime.format.external_data import checked, inlined, linked, relocate

HEAD = "onnx/head.onnx"
Graph = onnx.ModelProto
LOCATIONS = (
    "weights",
    "../manifest.json",
    "../../../etc/passwd",
    "/etc/passwd",
    "/dev/zero",
    "proc/self/mem",
    "*/_ORT_MEM_ADDR_/*",
    "head.onnx",
    "a\0b",
    "\udcff".encode("utf-8", "replace").decode(),
    "x" * 5000,
    "",
    ".",
)
NUMBERS = ("0", "48", "-1", "9" * 400, "1e3", "", "0x10", str(1 << 63), " 4", "\u0663")
SIZES = (0, 1, 48, 1 << 31, 1 << 40, (1 << 63) - 1, -1)


def run(folder: Path) -> Once:
    """Damaged bytes, opened and run."""
    bundle, feeds = tiny(folder), tiny_bundles.feeds()
    names = sorted(path.name for path in (bundle / "onnx").iterdir())
    readers = [_opened(bundle, f"onnx/{name}", lambda session: session.run(feeds)) for name in names]
    return lambda chance: chance.choice(readers)(chance)


def _opened(bundle: Path, name: str, use: Callable[[Any], object]) -> OfBytes:
    path = bundle / name
    whole = path.read_bytes()

    def read(data: bytes) -> None:
        path.write_bytes(data)
        tiny_bundles.rehash(bundle, name)
        try:
            with open_session(bundle, "onnxruntime", 1) as session:
                use(session)
        finally:
            path.write_bytes(whole)
            tiny_bundles.rehash(bundle, name)

    return OfBytes((whole,), read)


def external(folder: Path) -> Once:
    graph = onnx.load(tiny(folder) / HEAD)
    _set_external(graph.graph.initializer[0], "weights", "0", "48")
    return OfBytes((graph.SerializeToString(),), typed(lambda data: relocate(data, lambda place: place)))


def _set_external(tensor: Any, location: str, offset: str, length: str) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=value)


def structure(folder: Path) -> Once:
    """Checked as every backend gets it: before a parser sees it."""
    bundle = tiny(folder)
    whole = (bundle / HEAD).read_bytes()
    loaded = load_bundle(bundle)

    def once(chance: random.Random) -> None:
        data = hostile(whole, chance)
        checked(loaded, HEAD, data)
        inlined(loaded, HEAD, data)
        with linked(loaded, HEAD, data):
            pass

    return once


def loaded(folder: Path) -> Once:
    """Opened by ONNX Runtime; not run, which only a sandbox bounds."""
    bundle = tiny(folder)
    whole = (bundle / HEAD).read_bytes()
    opened = _opened(bundle, HEAD, lambda session: None)
    return lambda chance: opened.read(hostile(whole, chance))


def exported(folder: Path) -> Once:
    """Parsed with ONNX, as the workstation's tools do."""
    from perceiver_exporters.bundle.stored_graphs import stored_graph

    bundle = tiny(folder)
    whole = (bundle / HEAD).read_bytes()

    def once(chance: random.Random) -> None:
        (bundle / HEAD).write_bytes(hostile(whole, chance))
        tiny_bundles.rehash(bundle, HEAD)
        with load_bundle(bundle) as held:
            stored_graph(held, HEAD)

    return once


def hostile(whole: bytes, chance: random.Random) -> bytes:
    """A right graph (latents -> logits) with one to three hostile changes."""
    model = onnx.load_model_from_string(whole)
    for _ in range(chance.choice((1, 1, 2, 3))):
        chance.choice(CHANGES)(model, chance)
    return model.SerializeToString()


def _external(model: Graph, chance: random.Random) -> None:
    for tensor in model.graph.initializer:
        tensor.ClearField("external_data")
        _set_external(tensor, chance.choice(LOCATIONS), chance.choice(NUMBERS), chance.choice(NUMBERS))


def _cycle(model: Graph, chance: random.Random) -> None:
    node = chance.choice(model.graph.node)
    if node.input:
        node.input[0] = chance.choice([name for other in model.graph.node for name in other.output])


def _foreign(model: Graph, chance: random.Random) -> None:
    node = chance.choice(model.graph.node)
    node.domain = chance.choice(("evil", "com.microsoft", "ai.onnx.ml", "", "\n"))
    node.op_type = chance.choice(("Evil", "NGramRepeatBlock", "TreeEnsemble", "FusedMatMul", ""))
    if chance.random() < 0.5:
        model.opset_import.add(domain=node.domain, version=chance.choice((1, 10**6, -1)))


def _giant(model: Graph, chance: random.Random) -> None:
    tensor = chance.choice(model.graph.initializer)
    tensor.dims[:] = [chance.choice(SIZES) for _ in range(chance.choice((1, 2, 3, 70)))]


def _sparse(model: Graph, chance: random.Random) -> None:
    sparse = model.graph.sparse_initializer.add(dims=[chance.choice(SIZES)])
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(1, np.float32), "sparse"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.zeros(1, np.int64), "indices"))


def _filled(model: Graph, chance: random.Random) -> None:
    """A few bytes that ask for gigabytes when they are run."""
    kind = chance.choice(("ConstantOfShape", "Expand", "Tile", "Range"))
    number = len(model.graph.node)
    shape = numpy_helper.from_array(np.array([chance.choice((1, 1 << 31, 1 << 40))]), f"shape{number}")
    one = numpy_helper.from_array(np.ones(1, np.float32), f"one{number}")
    model.graph.initializer.extend((shape, one))
    inputs = {"ConstantOfShape": [shape.name], "Range": [shape.name] * 3}.get(kind, [one.name, shape.name])
    model.graph.node.append(helper.make_node(kind, inputs, [f"filled{number}"]))


def _functions(model: Graph, chance: random.Random) -> None:
    """Functions that call each other: 30 that call two each are 2^30 nodes."""
    count, calls = chance.choice((1, 2, 10, 30, 200)), chance.choice((1, 2, 10))
    version, own = helper.make_opsetid("", 18), helper.make_opsetid("f", 1)
    for i in range(count):
        inner = f"f{i - 1}" if i or chance.random() < 0.1 else ""
        names = ["a", *(f"v{j}" for j in range(calls - 1)), "b"]
        nodes = [
            helper.make_node(inner or "Neg", [names[j]], [names[j + 1]], domain="f" if inner else "")
            for j in range(calls)
        ]
        model.functions.append(helper.make_function("f", f"f{i}", ["a"], ["b"], nodes, [version, own]))
    model.opset_import.append(own)
    model.graph.node.append(helper.make_node(f"f{count - 1}", [model.graph.input[0].name], ["called"], domain="f"))


def _nested(model: Graph, chance: random.Random) -> None:
    """Branches within branches; parsers have limits of their own, so that these are put together from bytes."""
    kind, depth = chance.choice(("If", "Loop", "Evil")), chance.choice((1, 10, 20, 45))
    inner = helper.make_graph([helper.make_node("Neg", ["latents"], ["o"])], "g", [], [])
    for _ in range(depth):
        try:
            node = helper.make_node(kind, ["latents"], ["o"], then_branch=inner, else_branch=inner)
            inner = helper.make_graph([node], "g", [], []) if chance.random() < 0.9 else inner
        except Exception:  # of protobuf, at its own depth
            break
        if inner.ByteSize() > 1 << 20:
            break
    model.graph.node.append(helper.make_node(kind, ["latents"], ["nested"], then_branch=inner))


def _loop(model: Graph, chance: random.Random) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("c", 9, [])],
        [helper.make_tensor_value_info("d", 9, [])],
    )
    model.graph.node.append(helper.make_node("Loop", ["", ""], [], body=body))


def _many(model: Graph, chance: random.Random) -> None:
    last = model.graph.input[0].name
    for i in range(chance.choice((10, 1000))):
        model.graph.node.append(helper.make_node("Neg", [last], [f"many{i}"]))
        last = f"many{i}"


def _again(model: Graph, chance: random.Random) -> None:
    """Names that occur twice."""
    part = chance.choice((model.graph.node, model.graph.initializer, model.graph.input, model.graph.output))
    part.append(chance.choice(part))


def _typed(model: Graph, chance: random.Random) -> None:
    value = chance.choice((*model.graph.input, *model.graph.output))
    value.type.tensor_type.elem_type = chance.choice((0, 1, 7, 8, 16, 23, 99, -1))
    if value.type.tensor_type.shape.dim:
        value.type.tensor_type.shape.dim[0].dim_value = chance.choice(SIZES)


def _named(model: Graph, chance: random.Random) -> None:
    value = chance.choice((*model.graph.input, *model.graph.output))
    value.name = chance.choice(("", "a\0b", "x" * 5000, "\u202e", "latents"))


CHANGES: tuple[Callable[[Graph, random.Random], None], ...] = (
    _external,
    _cycle,
    _foreign,
    _giant,
    _sparse,
    _filled,
    _functions,
    _nested,
    _loop,
    _many,
    _again,
    _typed,
    _named,
)
