"""REAL builds with TensorRT-RTX of preprocessing in the graph: frames of bytes are an engine's input."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from engines.rtx import Subject, components, expected_products
from factories.weights import randomise
from torch import Tensor, nn

from perceiver_exporters.component import Blueprint, Component, Cut
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_exporters.preprocessing import NAME, Frames, with_preprocessing
from perceiver_runtime.manifest import Source
from perceiver_runtime.pipeline import Pipeline, Step
from perceiver_runtime.settings import ImageSettings
from perceiver_runtime.tensorrt.api import load_tensorrt
from perceiver_runtime.tensors import Profile, Range, TensorSpec

SETTINGS = ImageSettings(crop=(0.9, 0.9), size=(20, 20), mean=(0.5,) * 3, std=(0.25,) * 3)


class Head(nn.Module):
    """Scores from the mean of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, 3, 20, 20) to (batch, 4)."""
        scores: Tensor = self.linear(pixels.mean((2, 3)))
        return scores


def subject(frames: Frames) -> Subject:
    pixels = TensorSpec("pixel_values", "float32", ("batch", 3, 20, 20))
    logits = TensorSpec("logits", "float32", ("batch", 4))
    step = Step("head", {"pixel_values": "pixel_values"}, {"logits": "logits"}, "encode")
    cut = Cut(
        (Component("head", randomise(Head()), (pixels,), (logits,)),),
        Pipeline((pixels,), (logits,), (step,)),
        Profile("default", {"batch": Range(1, 1, 4)}),
    )
    feeds = {"frames": frames.random(3, 2, np.random.default_rng(0))}
    source = Source("head", "head", "", {}, pretrained=False)
    return Subject(Blueprint(source, with_preprocessing(cut, SETTINGS, frames), (), (feeds,)), SharedTraces())


@pytest.mark.parametrize("pixel_format", ["uint8", "nv12"])
def test_preprocessing_builds(pixel_format: str, tmp_path: Path) -> None:
    made = subject(Frames(48, 64, pixel_format))  # type: ignore[arg-type]
    for precision in ("fp32", "fp16", "int8"):
        folder = tmp_path / precision
        folder.mkdir()
        graph, built = next(components(load_tensorrt("tensorrt_rtx"), made, precision, folder))
        assert built.sidecar.component == NAME
        assert graph.graph.inputs[0].dtype == ir.DataType.UINT8
        assert Counter(built.sidecar.products) == expected_products(graph, precision)
