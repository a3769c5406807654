"""Tiny bundles made by hand with ONNX, so that the runtime can be tested without torch or the exporters.

`full_model` has everything that a pipeline can do: a default input, a repeated block with a carry, a chunked fold with
a carried sum, chunked concatenation, an encode and a decode stage, two heads. `reference` computes it with NumPy.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from perceiver_runtime.bundle import file_entry, write_manifest
from perceiver_runtime.golden import ComponentCall, GoldenSample, sample_path
from perceiver_runtime.manifest import MANIFEST_NAME, SCHEMA_VERSION, ComponentEntry, Manifest, Source, Tolerance
from perceiver_runtime.pipeline import Chunk, Pipeline, Step
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec

Arrays = dict[str, Array]
REPEAT, FOLD, PIECE = 3, 3, 4


@dataclass(frozen=True)
class Part:
    """A component: its ONNX nodes and initializers, and the same function in NumPy."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    nodes: tuple[Any, ...]
    weights: Mapping[str, Array]
    function: Callable[..., Arrays]

    def model(self) -> onnx.ModelProto:
        infos = [[_info(spec) for spec in specs] for specs in (self.inputs, self.outputs)]
        initializers = [numpy_helper.from_array(array, name) for name, array in self.weights.items()]
        graph = helper.make_graph(list(self.nodes), self.name, *infos, initializers)  # type: ignore[arg-type,call-arg]
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@dataclass(frozen=True)
class Model:
    """Parts, pipeline and profile, with feeds for a golden sample."""

    parts: tuple[Part, ...]
    pipeline: Pipeline
    profile: Profile

    def part(self, name: str) -> Part:
        return next(part for part in self.parts if part.name == name)


def full_model(seed: int = 0) -> Model:
    random = np.random.default_rng(seed)

    def weight(*shape: int) -> Array:
        return random.standard_normal(shape, dtype=np.float32) * np.float32(0.5)

    e, v, c, s, k, a, q = weight(4, 6), weight(6, 6), weight(6), weight(4), weight(4), weight(6, 2), weight(4, 6)
    x = _f32("x", "batch", 5, 4)
    mask = _f32("mask", "batch", 5)
    latents = _f32("latents", "batch", 5, 6)
    parts = (
        Part(
            "encoder",
            (x, mask),
            (latents,),
            (
                helper.make_node("Unsqueeze", ["mask", "last"], ["mask3"]),
                helper.make_node("Mul", ["x", "mask3"], ["masked"]),
                helper.make_node("MatMul", ["masked", "e"], ["latents"]),
            ),
            {"e": e, "last": np.array([2])},
            lambda x, mask: {"latents": (x * mask[..., None]) @ e},
        ),
        Part(
            "block",
            (latents,),
            (_f32("latents_out", "batch", 5, 6),),
            (
                helper.make_node("MatMul", ["latents", "v"], ["product"]),
                helper.make_node("Add", ["product", "c"], ["biased"]),
                helper.make_node("Tanh", ["biased"], ["latents_out"]),
            ),
            {"v": v, "c": c},
            lambda latents: {"latents_out": np.tanh(latents @ v + c)},
        ),
        Part(
            "start",
            (x,),
            (_f32("total", "batch", 4),),
            (
                helper.make_node("ReduceSum", ["x", "one"], ["summed"], keepdims=0),
                helper.make_node("Mul", ["summed", "s"], ["total"]),
            ),
            {"one": np.array([1]), "s": s},
            lambda x: {"total": x.sum(1) * s},
        ),
        Part(
            "fold",
            (_f32("keys", "b", "n", 4), _f32("total", "b", 4)),
            (_f32("total_out", "b", 4), _f32("scaled", "b", "n", 4)),
            (
                helper.make_node("Mul", ["keys", "k"], ["scaled"]),
                helper.make_node("ReduceSum", ["scaled", "one"], ["summed"], keepdims=0),
                helper.make_node("Add", ["total", "summed"], ["total_out"]),
            ),
            {"one": np.array([1]), "k": k},
            lambda keys, total: {"total_out": total + (keys * k).sum(1), "scaled": keys * k},
        ),
        Part(
            "head",
            (latents,),
            (_f32("logits", "batch", 5, 2),),
            (helper.make_node("MatMul", ["latents", "a"], ["logits"]),),
            {"a": a},
            lambda latents: {"logits": latents @ a},
        ),
        Part(
            "query",
            (_f32("queries", "batch", "q", 4), latents, _f32("total", "batch", 4)),
            (_f32("answers", "batch", "q", 5),),
            (
                helper.make_node("Unsqueeze", ["total", "one"], ["total3"]),
                helper.make_node("Mul", ["queries", "total3"], ["weighted"]),
                helper.make_node("MatMul", ["weighted", "w"], ["projected"]),
                helper.make_node("Transpose", ["latents"], ["turned"], perm=[0, 2, 1]),
                helper.make_node("MatMul", ["projected", "turned"], ["answers"]),
            ),
            {"one": np.array([1]), "w": q},
            lambda queries, latents, total: {"answers": ((queries * total[:, None]) @ q) @ latents.swapaxes(1, 2)},
        ),
    )
    steps = (
        Step("encoder", {"x": "x", "mask": "mask"}, {"latents": "latents"}, "encode"),
        Step("start", {"x": "x"}, {"total": "total"}, "encode"),
        Step(
            "fold",
            {"keys": "keys", "total": "total"},
            {"total_out": "total", "scaled": "scaled_keys"},
            "encode",
            chunk=Chunk("n", FOLD),
            carry={"total_out": "total"},
        ),
        Step(
            "block",
            {"latents": "latents"},
            {"latents_out": "latents"},
            "encode",
            REPEAT,
            None,
            {"latents_out": "latents"},
        ),
        Step("head", {"latents": "latents"}, {"logits": "logits"}, "decode"),
        Step(
            "query",
            {"queries": "queries", "latents": "latents", "total": "total"},
            {"answers": "answers"},
            "decode",
            chunk=Chunk("q", PIECE),
        ),
    )
    pipeline = Pipeline(
        (x, mask, _f32("keys", "batch", "keys", 4), _f32("queries", "batch", "queries", 4)),
        (
            _f32("logits", "batch", 5, 2),
            _f32("answers", "batch", "queries", 5),
            _f32("scaled_keys", "batch", "keys", 4),
        ),
        steps,
        {"mask": 1.0},
    )
    ranges = {"batch": Range(1, 1, 4), "keys": Range(1, 7, 32), "queries": Range(1, 10, 64)}
    return Model(parts, pipeline, Profile("default", ranges))


def feeds(batch: int = 1, keys: int = 7, queries: int = 10, seed: int = 1) -> Arrays:
    """Inputs of `full_model`, without the mask."""
    random = np.random.default_rng(seed)
    shapes = {"x": (batch, 5, 4), "keys": (batch, keys, 4), "queries": (batch, queries, 4)}
    return {name: random.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def reference(model: Model, given: Mapping[str, Array]) -> Arrays:
    """All values after the last step, computed whole: neither chunks nor buffers."""
    values = dict(given)
    for spec in model.pipeline.inputs:
        if spec.name not in values:
            sizes = _sizes(model, given)
            values[spec.name] = np.full(spec.resolve(sizes), model.pipeline.defaults[spec.name], spec.dtype)
    for step in model.pipeline.steps:
        inputs = {graph: values[value] for graph, value in step.inputs.items()}
        for _ in range(step.repeat):
            outputs = model.part(step.component).function(**inputs)
            inputs |= {graph: outputs[output] for output, graph in step.carry.items()}
        values |= {value: outputs[graph] for graph, value in step.outputs.items()}
    return values


def _sizes(model: Model, given: Mapping[str, Array]) -> dict[str, int]:
    shapes = [(spec.shape, given[spec.name].shape) for spec in model.pipeline.inputs if spec.name in given]
    return {str(s): n for symbols, shape in shapes for s, n in zip(symbols, shape, strict=True)}


def write(directory: Path, model: Model, given: Mapping[str, Array], tolerance: float = 1e-5) -> Path:
    """Write a whole, right bundle with one golden sample."""
    for folder in ("onnx", "golden"):
        (directory / folder).mkdir(parents=True)
    for part in model.parts:
        onnx.save(part.model(), directory / f"onnx/{part.name}.onnx")
    sample = golden_sample(model, given)
    save_file({k: np.ascontiguousarray(v) for k, v in sample.tensors().items()}, directory / sample_path(0))
    write_manifest(directory, _manifest(directory, model, sample, tolerance))
    return directory


def golden_sample(model: Model, given: Mapping[str, Array]) -> GoldenSample:
    final = reference(model, given)
    kept = sorted(model.pipeline.shown.items())
    random = np.random.default_rng(2)
    calls = {}
    for part in model.parts:
        sizes = {"batch": 1, "b": 1, "n": FOLD, "q": PIECE}
        inputs = {s.name: _random(s, sizes, random) for s in part.inputs}
        calls[part.name] = ComponentCall(part.name, inputs, part.function(**inputs))
    return GoldenSample(given, {name: final[value] for name, value in kept}, calls)


def _random(spec: TensorSpec, sizes: Mapping[str, int], random: np.random.Generator) -> Array:
    if spec.dtype == "uint8":
        return random.integers(0, 256, spec.resolve(sizes), np.uint8)
    return random.standard_normal(spec.resolve(sizes), dtype=np.float32)


def change(directory: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
    """Edit the manifest's JSON in place, and take its digest off."""
    path = directory / MANIFEST_NAME
    content = json.loads(path.read_text())
    content.pop("digest", None)
    edit(content)
    path.write_text(json.dumps(content))
    return directory


def rehash(directory: Path, relative: str) -> Path:
    """Let the manifest agree with a file that was changed."""
    entry = file_entry(directory / relative)
    return change(directory, lambda m: m["files"].update({relative: {"sha256": entry.sha256, "size": entry.size}}))


def _manifest(directory: Path, model: Model, sample: GoldenSample, tolerance: float) -> Manifest:
    bounds = [(part.name, spec.name) for part in model.parts for spec in part.outputs]
    bounds += [("pipeline", name) for name in sample.values]
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    return Manifest(
        schema_version=SCHEMA_VERSION,
        source=Source("tiny", "test", "0" * 64, {"width": 6}, False),
        precision="fp32",
        target="cpu",
        opset=18,
        components=tuple(
            ComponentEntry(p.name, f"onnx/{p.name}.onnx", p.inputs, p.outputs, "fp32", 10, 100) for p in model.parts
        ),
        pipeline=model.pipeline,
        profiles=(model.profile,),
        tolerances=tuple(Tolerance(c, t, tolerance, tolerance / 4, "test") for c, t in bounds),
        golden=(sample_path(0),),
        tools={"onnx": onnx.__version__},
        files={p.relative_to(directory).as_posix(): file_entry(p) for p in files},
    )


def with_steps(model: Model, **changes: Any) -> Model:
    """The model with the step of each named component changed."""
    steps = tuple(replace(s, **changes[s.component]) if s.component in changes else s for s in model.pipeline.steps)
    return replace(model, pipeline=replace(model.pipeline, steps=steps))


def _f32(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


def _info(spec: TensorSpec) -> Any:
    kinds = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "uint8": TensorProto.UINT8}
    return helper.make_tensor_value_info(spec.name, kinds[spec.dtype], spec.shape)


def lie_about_output(bundle: Path) -> None:
    """The graph says (batch, 5, z) and gives 2; a manifest that says 3 passes the load and is caught by the run."""
    import onnx

    graph = onnx.load(bundle / "onnx/head.onnx")
    graph.graph.output[0].type.tensor_type.shape.dim[2].dim_param = "z"
    onnx.save(graph, bundle / "onnx/head.onnx")
    rehash(bundle, "onnx/head.onnx")

    def widen(m: dict[str, Any]) -> None:
        next(c for c in m["components"] if c["name"] == "head")["outputs"][0]["shape"][2] = 3
        m["pipeline"]["outputs"][0]["shape"][2] = 3

    change(bundle, widen)
