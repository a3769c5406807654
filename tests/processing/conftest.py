"""Bundles whose answers are known.

A text model that knows one letter, a classifier of colours, a flow model that subtracts, an autoencoder that keeps
everything.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundles
from onnx import helper
from tiny_bundles import Model, Part

from perceiver_runtime.execution.opening import open_session
from perceiver_runtime.execution.session import Session
from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec

FRAMES, SIDE, SAMPLES, PATCH, CLASSES = 3, 8, 64, 16, 5
TILE = (12, 16)
LETTER = ord("e") + 6


@pytest.fixture(scope="session")
def flow_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Flow is (second - first, first) of the centre pixel's red, divided by 20."""
    weights = np.zeros((2, 54, 1, 1), np.float32)
    red = 4 * 3
    weights[:, red, 0, 0] = -0.05, 0.05
    weights[0, 27 + red, 0, 0] = 0.05
    inputs = TensorSpec("inputs", "float32", ("batch", 2, 27, *TILE))
    flow = TensorSpec("flow", "float32", ("batch", *TILE, 2))
    nodes = (
        helper.make_node("Reshape", ["inputs", "flat"], ["stacked"]),
        helper.make_node("Conv", ["stacked", "weights"], ["planes"]),
        helper.make_node("Transpose", ["planes"], ["flow"], perm=[0, 2, 3, 1]),
    )

    def function(inputs: Array) -> dict[str, Array]:
        stacked = inputs.reshape(len(inputs), 54, *TILE)
        return {"flow": np.einsum("oc,bchw->bhwo", weights[:, :, 0, 0], stacked)}

    part = Part("network", (inputs,), (flow,), nodes, {"flat": np.array([0, 54, *TILE]), "weights": weights}, function)
    step = Step("network", {"inputs": "inputs"}, {"flow": "flow"}, "encode")
    model = Model((part,), Pipeline((inputs,), (flow,), (step,)), Profile("default", {"batch": Range(1, 1, 2)}))
    given = {"inputs": np.zeros((1, 2, 27, *TILE), np.float32)}
    with _session(tmp_path_factory, "flow", model, given) as session:
        yield session


@pytest.fixture(scope="session", params=["n", 24], ids=["any-length", "fixed-length"])
def text_session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Every [MASK] is an "e" by far, and any other token is itself."""
    table = np.eye(262, dtype=np.float32) * 5
    table[3, [3, LETTER]] = 0, 10
    ids = TensorSpec("input_ids", "int64", ("batch", request.param))
    mask = TensorSpec("attention_mask", "int64", ids.shape)
    logits = TensorSpec("logits", "float32", (*ids.shape, 262))
    nodes = (
        helper.make_node("Mul", ["input_ids", "attention_mask"], ["seen"]),
        helper.make_node("Gather", ["table", "seen"], ["logits"]),
    )
    part = Part(
        "network",
        (ids, mask),
        (logits,),
        nodes,
        {"table": table},
        lambda input_ids, attention_mask: {"logits": table[(input_ids * attention_mask).astype(int) % 262]},
    )
    names = {"input_ids": "input_ids", "attention_mask": "attention_mask"}
    step = Step("network", names, {"logits": "logits"}, "encode")
    ranges = {"batch": Range(1, 1, 2), "n": Range(2, 16, 32)}
    profile = Profile("default", {s: ranges[s] for s in ids.symbols})
    given = {name: np.ones((1, 24), np.int64) for name in names}
    model = Model((part,), Pipeline((ids, mask), (logits,), (step,)), profile)
    with _session(tmp_path_factory, "text", model, given) as session:
        yield session


@pytest.fixture(scope="session")
def classifier_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Scores are the channels' means: red, green or blue."""
    pixels = _f32("pixel_values", "batch", 3, 16, 16)
    logits = _f32("logits", "batch", 3)
    nodes = (helper.make_node("ReduceMean", ["pixel_values", "axes"], ["logits"], keepdims=0),)
    part = Part(
        "network",
        (pixels,),
        (logits,),
        nodes,
        {"axes": np.array([2, 3])},
        lambda pixel_values: {"logits": pixel_values.mean((2, 3))},
    )
    step = Step("network", {"pixel_values": "pixel_values"}, {"logits": "logits"}, "encode")
    model = Model((part,), Pipeline((pixels,), (logits,), (step,)), Profile("default", {"batch": Range(1, 1, 4)}))
    given = {"pixel_values": np.zeros((1, 3, 16, 16), np.float32)}
    with _session(tmp_path_factory, "classifier", model, given) as session:
        yield session


@pytest.fixture(scope="session")
def autoencoder_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Gives back every point that it is asked for, and class 2."""
    with _session(tmp_path_factory, "autoencoder", *_autoencoder()) as session:
        yield session


def _autoencoder() -> tuple[Model, dict[str, Array]]:
    points = FRAMES * SIDE * SIDE
    image = _f32("image", "batch", FRAMES, 3, SIDE, SIDE)
    audio = _f32("audio", "batch", SAMPLES, 1)
    pixels, patches = _f32("pixels", "batch", points, 3), _f32("patches", "batch", SAMPLES // PATCH, PATCH)
    image_index, audio_index = (TensorSpec(f"{n}_index", "int64", (s,)) for n, s in (("image", "n"), ("audio", "q")))
    image_out, audio_out = _f32("decoded_image", "batch", "n", 3), _f32("decoded_audio", "batch", "q", PATCH)
    label = _f32("label", "batch", CLASSES)
    scores = np.zeros((3, CLASSES), np.float32)
    bias = np.array([0, 0, 9, 0, 0], np.float32)

    def gather(source: str, output: str) -> tuple[Any, ...]:
        return (helper.make_node("Gather", [source, "index"], [output], axis=1),)

    parts = (
        Part(
            "encoder",
            (image, audio),
            (pixels, patches),
            (
                helper.make_node("Transpose", ["image"], ["last"], perm=[0, 1, 3, 4, 2]),
                helper.make_node("Reshape", ["last", "rows"], ["pixels"]),
                helper.make_node("Reshape", ["audio", "cuts"], ["patches"]),
            ),
            {"rows": np.array([0, points, 3]), "cuts": np.array([0, SAMPLES // PATCH, PATCH])},
            lambda image, audio: {
                "pixels": image.transpose(0, 1, 3, 4, 2).reshape(-1, points, 3),
                "patches": audio.reshape(-1, SAMPLES // PATCH, PATCH),
            },
        ),
        Part(
            "image_decoder",
            (pixels, TensorSpec("index", "int64", ("n",))),
            (image_out,),
            gather("pixels", "decoded_image"),
            {},
            lambda pixels, index: {"decoded_image": pixels[:, index.astype(int) % points]},
        ),
        Part(
            "audio_decoder",
            (patches, TensorSpec("index", "int64", ("q",))),
            (audio_out,),
            gather("patches", "decoded_audio"),
            {},
            lambda patches, index: {"decoded_audio": patches[:, index.astype(int) % (SAMPLES // PATCH)]},
        ),
        Part(
            "label_decoder",
            (pixels,),
            (label,),
            (
                helper.make_node("ReduceMean", ["pixels", "one"], ["mean"], keepdims=0),
                helper.make_node("MatMul", ["mean", "scores"], ["product"]),
                helper.make_node("Add", ["product", "bias"], ["label"]),
            ),
            {"one": np.array([1]), "scores": scores, "bias": bias},
            lambda pixels: {"label": pixels.mean(1) @ scores + bias},
        ),
    )
    steps = (
        Step("encoder", {"image": "image", "audio": "audio"}, {"pixels": "pixels", "patches": "patches"}, "encode"),
        Step(
            "image_decoder", {"pixels": "pixels", "index": "image_index"}, {"decoded_image": "decoded_image"}, "decode"
        ),
        Step(
            "audio_decoder",
            {"patches": "patches", "index": "audio_index"},
            {"decoded_audio": "decoded_audio"},
            "decode",
        ),
        Step("label_decoder", {"pixels": "pixels"}, {"label": "label"}, "decode"),
    )
    outputs = (_f32("image", *image_out.shape), _f32("audio", *audio_out.shape), label)
    aliases = {"image": "decoded_image", "audio": "decoded_audio"}
    pipeline = Pipeline((image, audio, image_index, audio_index), outputs, steps, aliases=aliases)
    ranges = {"batch": Range(1, 1, 2), "n": Range(1, 64, points), "q": Range(1, 4, SAMPLES // PATCH)}
    given = {
        "image": np.zeros((1, FRAMES, 3, SIDE, SIDE), np.float32),
        "audio": np.zeros((1, SAMPLES, 1), np.float32),
        "image_index": np.arange(4),
        "audio_index": np.arange(2),
    }
    return Model(parts, pipeline, Profile("default", ranges)), given  # type: ignore[return-value]


def _f32(name: str, *shape: int | str) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


def _session(factory: pytest.TempPathFactory, name: str, model: Model, given: dict[str, Array]) -> Session:
    directory: Path = factory.mktemp(name) / "bundle"
    tiny_bundles.write(directory, model, given)
    return open_session(directory, threads=1)
