"""`folded`: a model of images as one of frames of 8 bits, whose first component is the preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from perceiver_deploy.sources.model import Model
from perceiver_exporters.preprocessing import FRAMES, WHERE, Frames, with_preprocessing
from perceiver_runtime.errors import UsageError
from perceiver_runtime.manifest import Manifest
from perceiver_runtime.settings import ImageSettings, Processing
from perceiver_runtime.tensors import Array


def folded(model: Model, frames: Frames) -> Model:
    """The model with its image preprocessing in the graph.

    Args:
        model: A model whose image processing is known.
        frames: What it is to take.

    Returns:
        The model, without its data set, which is of preprocessed images.

    Raises:
        UsageError: The processing is not known, is none of images, or frames can't be made into the model's images.
    """
    processing = model.processing
    if processing is None or processing.image is None:
        why = processing.refusal if processing is not None else ""
        raise UsageError(f"{WHERE}: expected a model whose image processing is known; {model.name}: {why or 'none'}")
    if model.made is not None:
        raise UsageError(f"{WHERE}: {model.name} is a blueprint, whose golden inputs are made already; leave it out")
    settings = processing.image
    if settings.format != "float":
        raise UsageError(f"{WHERE}: {model.name} takes frames already; leave it out")
    own = model.family

    def sample(config: Any, batch: int, random: np.random.Generator) -> Mapping[str, Array]:
        feeds = {n: array for n, array in own.sample(config, batch, random).items() if n != settings.input}
        return {**feeds, FRAMES: frames.random(settings.channels, batch, random)}

    family = replace(own, cut=lambda module: with_preprocessing(own.cut(module), settings, frames), sample=sample)
    family.cut(model.module)  # refuses what does not fit
    taken = replace(processing, image=replace(settings, input=FRAMES, format=frames.format))
    notes = (
        (f"{model.name}: its data set {model.dataset.name} is of preprocessed images: not used",)
        if model.dataset
        else ()
    )
    labels = model.dataset.labels if model.dataset else model.labels
    return replace(model, family=family, processing=taken, dataset=None, labels=labels, notes=(*model.notes, *notes))


def folded_as(model: Model, manifest: Manifest) -> Model:
    """The model with its preprocessing in the graph if the bundle has it there, by the bundle's own settings."""
    stated: Processing | None = manifest.processing
    if stated is None or stated.image is None or stated.image.format == "float":
        return model
    image: ImageSettings = stated.image
    shape = next(spec.shape for spec in manifest.pipeline.inputs if spec.name == image.input)
    height = int(shape[1]) * 2 // 3 if image.format == "nv12" else int(shape[1])
    pixels = next(step.outputs for step in manifest.pipeline.steps if image.input in step.inputs.values())
    own = replace(stated, image=replace(image, input=next(iter(pixels.values())), format="float"))
    return folded(replace(model, processing=own), Frames(height, int(shape[2]), image.format))
