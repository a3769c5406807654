"""Preprocessing in the graph: equal to the runtime's within the derived difference, at every precision."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from factories.families import SMALL
from factories.weights import randomise
from hypothesis import given, settings
from hypothesis import strategies as st

import perceiver_deploy as pd
from perceiver_deploy.datasets.dataset import shipped
from perceiver_deploy.families import FAMILIES
from perceiver_deploy.sources.folding import folded
from perceiver_deploy.sources.model import Model
from perceiver_deploy.sources.reference import folded_as
from perceiver_deploy.sources.source import blueprint
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_exporters.preprocessing import Frames, Preprocess, difference
from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.processing.image import classify
from perceiver_runtime.processing.labels import softmax
from perceiver_runtime.processing.pixels import image_values
from perceiver_runtime.settings import ImageSettings, Processing

ROUNDING = 3e-5
"""Of FP32, in units of a pixel's values, which reach 10 here."""
HALVES = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
SIDE = st.integers(1, 40)
STATED = st.builds(
    ImageSettings,
    crop=st.sampled_from(((), (0.875, 0.875), (0.5, 1.2), (1.5, 1.5))),
    size=st.tuples(SIDE, SIDE),
    filter=st.sampled_from(("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")),
    center_crop=st.sampled_from(((), (9, 14), (50, 3))),
    scale=st.sampled_from((1 / 255, 0.01, None)),
    mean=st.just((0.4, 0.5, 0.6)),
    std=st.just((0.2, 0.3, 0.4)),
)


@settings(max_examples=80, deadline=None)
@given(STATED, st.integers(8, 60), st.integers(8, 60), st.booleans(), st.integers(0, 9))
def test_values_are_within_the_derived_difference(
    stated: ImageSettings, height: int, width: int, contrast: bool, seed: int
) -> None:
    """All filters, sizes and crops; with full contrast, filters overshoot and are clipped."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    image = np.where(noise > 127, 255, 0).astype(np.uint8) if contrast else noise
    frames = Frames(height, width)
    got = Preprocess(stated, frames)(torch.from_numpy(image[None]))[0].numpy()
    expected = image_values(image, stated)
    gain = (1.0 if stated.scale is None else stated.scale) / min(stated.std)
    assert np.abs(got - expected).max() <= difference(stated, frames) + 255 * gain * 1e-6


def test_the_derived_difference_is_small() -> None:
    """In levels of 8 bits, for a camera's frame and the released size."""
    stated = ImageSettings(size=(224, 224), scale=None)
    levels = {
        name: difference(dataclasses.replace(stated, filter=name), Frames(480, 640)) for name in ("box", "bicubic")
    }
    assert levels == {"box": pytest.approx(1.0, abs=1e-4), "bicubic": pytest.approx(1.09, abs=0.01)}


def rgb(frame: np.ndarray) -> np.ndarray:
    """NV12 (H * 3 / 2, W) to RGB (H, W, 3) of 8 bits: ITU-R BT.601, video range, a colour for four pixels."""
    height = frame.shape[0] * 2 // 3
    luma, chroma = frame[:height].astype(np.float64) - 16, frame[height:].reshape(height // 2, -1, 2) - 128.0
    u, v = chroma.repeat(2, 0).repeat(2, 1).transpose(2, 0, 1)
    kr, kb = 0.299, 0.114
    red, blue = v * (1 - kr) * 255 / 112, u * (1 - kb) * 255 / 112
    grey = luma * 255 / 219
    green = -(kr * red + kb * blue) / (1 - kr - kb)
    colours = np.stack([grey + red, grey + green, grey + blue], -1)
    return np.clip(np.rint(colours), 0, 255).astype(np.uint8)


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 20), st.integers(4, 20), st.sampled_from(("bilinear", "bicubic", "nearest")), st.integers(0, 9))
def test_nv12_is_within_the_derived_difference(half_height: int, half_width: int, filter: Any, seed: int) -> None:
    frames = Frames(2 * half_height, 2 * half_width, "nv12")
    frame = np.random.default_rng(seed).integers(0, 256, (3 * half_height, 2 * half_width)).astype(np.uint8)
    stated = ImageSettings(size=(14, 11), filter=filter, **HALVES)  # type: ignore[arg-type]
    got = Preprocess(stated, frames)(torch.from_numpy(frame[None]))[0].numpy()
    assert np.abs(got - image_values(rgb(frame), stated)).max() <= difference(stated, frames) + ROUNDING


def model(**changes: Any) -> Model:
    """A small classifier of random weights, whose images are of 24 x 24."""
    torch.manual_seed(0)
    family = FAMILIES["image-classifier-conv"]
    config = dataclasses.replace(SMALL["image-classifier-conv"], height=24, width=24)
    module = randomise(family.build(config)).eval()
    stated = ImageSettings(**{"size": (24, 24), **HALVES, **changes})
    return Model("photos", family, config, module, True, processing=Processing(image=stated))


@dataclasses.dataclass(frozen=True)
class Folded:
    """A blueprint with frames to calibrate with, traced once for all precisions."""

    made: Blueprint
    traces: SharedTraces

    @property
    def frame(self) -> np.ndarray:
        frame: np.ndarray = self.made.golden[0]["frames"][0]
        return frame


@pytest.fixture(scope="module", params=["uint8", "nv12"])
def subject(request: pytest.FixtureRequest) -> Folded:
    plain, frames, random = model(), Frames(36, 48, request.param), np.random.default_rng(1)
    calibration, held_out = ({"frames": frames.random(3, n, random)} for n in (16, 8))
    labels = tuple(map(str, range(plain.config.classes)))
    data = shipped("frames", labels, calibration, held_out, np.zeros(8, np.int64))
    return Folded(blueprint(dataclasses.replace(folded(plain, frames), dataset=data)), SharedTraces())


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1e-5), ("fp16", 5e-3), ("int8", 5e-2)])
def test_a_folded_bundle_holds_parity_at(precision: str, most: float, subject: Folded, tmp_path: Path) -> None:
    """With the reference, whose first part the preprocessing is; and with the processor before the plain model."""
    manifest = export_bundle(subject.made, tmp_path / "bundle", precision, tracer=subject.traces)
    report = pd.verify(tmp_path / "bundle")
    assert report.passed
    images = [r for r in report.reports if r.tensor == "pixel_values" and r.mode == "teacher-forced"]
    assert len(images) == 1
    assert images[0].rel_l2 <= most
    assert manifest.processing is not None
    assert manifest.processing.image is not None
    frame, plain = subject.frame, model()
    assert plain.processing is not None
    assert plain.processing.image is not None
    image = frame if manifest.processing.image.format == "uint8" else rgb(frame)
    values = torch.from_numpy(image_values(image, plain.processing.image)[None])
    with torch.no_grad():
        expected = softmax(plain.module(values).numpy())[0]
    with pd.open_session(tmp_path / "bundle") as session:
        predictions = classify(session, [frame], k=len(manifest.labels))[0]
        with pytest.raises(FeedError, match=r"give it in the size that the model takes|give frames in NV12"):
            classify(session, [np.zeros((10, 10, 3), np.uint8)])
    got = np.array([p.probability for p in sorted(predictions, key=lambda p: p.index)])
    assert np.abs(got - expected).max() < {"fp32": 0.005, "fp16": 0.01, "int8": 0.1}[precision]
    assert _folded_again(manifest) == [str(spec) for spec in manifest.pipeline.inputs]


def _folded_again(manifest: Manifest) -> list[str]:
    """Inputs of the reference that is found for a bundle."""
    found = folded_as(model(), manifest)
    return [str(spec) for spec in found.family.cut(found.module).pipeline.inputs]


def test_the_whole_path_of_a_shipped_model(tmp_path: Path) -> None:
    """Grey frames, of a model whose labels are those of its data set."""
    pd.export("fashion-perceiver", tmp_path / "b", fold_preprocessing=(40, 30))
    assert pd.verify(tmp_path / "b").passed
    with pd.open_session(tmp_path / "b") as session:
        assert str(session.inputs[0]) == "frames: uint8[batch, 40, 30, 1]"
        assert classify(session, [np.zeros((40, 30), np.uint8)], k=1)[0][0].label in session.manifest.labels


@pytest.mark.parametrize(
    ("source", "options", "says"),
    [
        ("emoji-namer", {"fold_preprocessing": (40, 40)}, "pixel_values may be left out, and frames may not"),
        ("language-identifier", {"fold_preprocessing": (40, 40)}, "expected a model whose image processing is known"),
        ("fashion-perceiver", {"fold_preprocessing": (40, 40), "pixel_format": "nv12"}, "nv12 has colours and even"),
        ("fashion-perceiver", {"fold_preprocessing": (0, 40)}, r"--fold-preprocessing\): expected height and width"),
        ("fashion-perceiver", {"pixel_format": "nv12"}, r"goes with fold_preprocessing \(--fold-preprocessing\)"),
        (
            "fashion-perceiver",
            {"fold_preprocessing": (9, 9), "pixel_format": "yuv"},
            "expected uint8 or nv12, got 'yuv'",
        ),
    ],
)
def test_what_can_not_be_folded_is_refused(tmp_path: Path, source: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        pd.export(source, tmp_path / "b", **options)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("changes", "frames", "says"),
    [
        ({"size": (20, 20)}, Frames(30, 30), "become images of 20 x 20, and the model takes 24 x 24"),
        ({"size": (), "shortest_edge": 24}, Frames(30, 60), "become images of 24 x 48, and the model takes 24 x 24"),
        ({"crop": (0.01, 0.01)}, Frames(30, 30), "a frame of 30 x 30 is too small for the crop"),
        ({}, Frames(30, 31, "nv12"), "nv12 has colours and even sides"),
        ({"format": "uint8"}, Frames(30, 30), "takes frames already"),
    ],
)
def test_frames_that_do_not_become_the_models_images_are_refused(
    changes: dict[str, Any], frames: Frames, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        folded(model(**changes), frames)
