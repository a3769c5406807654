"""Small checkpoints of transformers, and edits of their files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.oracle import REDUCED, Case, normal, saved, text
from safetensors.torch import load_file, save_file
from torch import Tensor

LANGUAGE = Case("PerceiverForSequenceClassification", {**REDUCED, "num_cross_attention_heads": 2}, text(2, 20, 50))
FOURIER = Case("PerceiverForImageClassificationFourier", REDUCED, normal("pixel_values", 2, 3, 20, 24), (20, 24))
CONV = Case("PerceiverForImageClassificationConvProcessing", REDUCED, normal("pixel_values", 2, 3, 40, 52), (40, 52))
FLOW = Case("PerceiverForOpticalFlow", {**REDUCED, "train_size": [12, 18]}, normal("inputs", 2, 2, 27, 12, 18))
LEARNED = Case(
    "PerceiverForImageClassificationLearned", {**REDUCED, "image_size": 12}, normal("pixel_values", 2, 3, 12, 12)
)
VIDEO = Case(
    "PerceiverForMultimodalAutoencoding",
    {**REDUCED, "num_frames": 2, "audio_samples_per_frame": 32, "output_shape": [1, 2, 16, 16], "image_size": 4},
    dict,
)


def change(directory: Path, edit: Callable[[dict[str, Tensor]], Any]) -> None:
    """Rewrite model.safetensors by a function of its tensors."""
    tensors = load_file(directory / "model.safetensors")
    edit(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / "model.safetensors")


def configure(directory: Path, **changes: Any) -> None:
    """Set fields of config.json."""
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def made(case: Case, directory: Path) -> Path:
    """A checkpoint directory of a class."""
    return saved(case.oracle(), directory)
