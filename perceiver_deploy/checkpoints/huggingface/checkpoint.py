"""Hugging Face Perceivers (`PerceiverFor...` of transformers), from a directory or the hub.

`config.json` determines the class; weights are safetensors, whole or sharded, or `.bin` files read without executing
pickles. Every tensor is accounted for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from perceiver_deploy.checkpoints.fields import shown
from perceiver_deploy.checkpoints.files.json_file import read_json
from perceiver_deploy.checkpoints.files.tensors import find_weights, read_tensors
from perceiver_deploy.checkpoints.filling import filled
from perceiver_deploy.checkpoints.huggingface import config as configs
from perceiver_deploy.checkpoints.huggingface.fields import Size, complete
from perceiver_deploy.checkpoints.huggingface.image_processor import read_image_processor
from perceiver_deploy.checkpoints.huggingface.input_size import InputSize, input_size
from perceiver_deploy.checkpoints.huggingface.processing import IMAGE_FAMILIES, processing
from perceiver_deploy.checkpoints.loaded import DEFAULT, OWN_MODULE, LoadedCheckpoint, LoadOptions
from perceiver_deploy.checkpoints.renaming import Rule, rename, under
from perceiver_deploy.families import FAMILIES
from perceiver_deploy.models.flow import OpticalFlow
from perceiver_deploy.models.image_classifier import ImageClassifier
from perceiver_deploy.models.multimodal import MultimodalAutoencoder
from perceiver_deploy.models.text import MaskedLanguageModel, SequenceClassifier
from perceiver_runtime.errors import CheckpointError


@dataclass(frozen=True)
class Architecture:
    """One class of transformers: its family, config and model, and the renaming of its tensors.

    `size` is the path of the input size in the config; empty for a class that takes images of any size.
    """

    family: str
    config: Callable[[Mapping[str, Any], Size | None], Any]
    build: Callable[[Any], nn.Module]
    rules: tuple[Rule, ...]
    size: str = "has no images"


ATTENTION = (
    ("attention.self.query.{p}", "attention.query.{p}"),
    ("attention.self.key.{p}", "attention.key.{p}"),
    ("attention.self.value.{p}", "attention.value.{p}"),
    ("attention.output.dense.{p}", "attention.output.{p}"),
    ("layernorm.{p}", "mlp_norm.{p}"),
    ("mlp.dense1.{p}", "mlp.0.{p}"),
    ("mlp.dense2.{p}", "mlp.2.{p}"),
)
CROSS = (
    ("attention.self.layernorm1.{p}", "query_norm.{p}"),
    ("attention.self.layernorm2.{p}", "input_norm.{p}"),
    *ATTENTION,
)
SELF = (("attention.self.layernorm1.{p}", "norm.{p}"), *ATTENTION)
TRUNK = (
    rename("perceiver.embeddings.latents", "perceiver.latents"),
    *under("perceiver.encoder.cross_attention", "perceiver.encoder", CROSS),
    *under("perceiver.encoder.self_attends.{i}", "perceiver.block.{i}", SELF),
)
TEXT = (
    rename("perceiver.input_preprocessor.embeddings.weight", "tokens.tokens.weight"),
    rename("perceiver.input_preprocessor.position_embeddings.weight", "tokens.positions"),
)
CLASS_DECODER = (
    *under("perceiver.decoder.decoder.decoding_cross_attention", "perceiver.decoder", CROSS),
    rename("perceiver.decoder.decoder.output_position_encodings.position_embeddings", "query"),
    rename("perceiver.decoder.decoder.final_layer.{p}", "head.{p}"),
)
CONVNET = "perceiver.input_preprocessor.convnet"
MODALITIES = "perceiver.decoder.modalities"

ARCHITECTURES: dict[str, Architecture] = {
    "PerceiverForMaskedLM": Architecture(
        "masked-language-model",
        configs.masked_language_model,
        MaskedLanguageModel,
        (
            *TRUNK,
            *TEXT,
            *under("perceiver.decoder.decoding_cross_attention", "perceiver.decoder", CROSS),
            rename("perceiver.decoder.output_position_encodings.position_embeddings", "query"),
            rename("embedding_decoder.bias", "head.bias"),
        ),
    ),
    "PerceiverForSequenceClassification": Architecture(
        "sequence-classifier", configs.sequence_classifier, SequenceClassifier, (*TRUNK, *TEXT, *CLASS_DECODER)
    ),
    "PerceiverForImageClassificationLearned": Architecture(
        "image-classifier-learned",
        configs.learned_classifier,
        ImageClassifier,
        (
            *TRUNK,
            *CLASS_DECODER,
            rename("perceiver.input_preprocessor.convnet_1x1.{p}", "tokens.project.{p}"),
            rename("perceiver.input_preprocessor.position_embeddings.position_embeddings", "tokens.positions"),
            rename("perceiver.input_preprocessor.positions_projection.{p}", "tokens.position_projection.{p}"),
        ),
        size="has a learned position for each pixel of the image_size in its config.json",
    ),
    "PerceiverForImageClassificationFourier": Architecture(
        "image-classifier-fourier", configs.fourier_classifier, ImageClassifier, (*TRUNK, *CLASS_DECODER), size=""
    ),
    "PerceiverForImageClassificationConvProcessing": Architecture(
        "image-classifier-conv",
        configs.conv_classifier,
        ImageClassifier,
        (
            *TRUNK,
            *CLASS_DECODER,
            rename(f"{CONVNET}.conv.weight", "tokens.conv.weight"),
            rename(f"{CONVNET}.batchnorm.{{p}}", "tokens.norm.{p}"),
            *(
                rename(f"{CONVNET}.batchnorm.{name}", f"tokens.norm.{name}")
                for name in ("running_mean", "running_var", "num_batches_tracked")
            ),
        ),
        size="",
    ),
    "PerceiverForOpticalFlow": Architecture(
        "optical-flow",
        configs.optical_flow,
        OpticalFlow,
        (
            *TRUNK,
            rename("perceiver.input_preprocessor.conv_after_patches.{p}", "tokens.project.{p}"),
            *under("perceiver.decoder.decoder.decoding_cross_attention", "perceiver.decoder", CROSS),
            rename("perceiver.decoder.decoder.final_layer.{p}", "head.{p}"),
        ),
        size="takes frames of the train_size in its config.json",
    ),
    "PerceiverForMultimodalAutoencoding": Architecture(
        "multimodal-autoencoder",
        configs.multimodal,
        MultimodalAutoencoder,
        (
            *TRUNK,
            rename("perceiver.input_preprocessor.padding.image", "tokens.video_padding"),
            rename("perceiver.input_preprocessor.padding.audio", "tokens.audio_padding"),
            rename("perceiver.input_preprocessor.mask.label", "tokens.label_token"),
            # Image and audio are never masked, the label always is: these tensors are multiplied by zero.
            rename("perceiver.input_preprocessor.mask.image"),
            rename("perceiver.input_preprocessor.mask.audio"),
            rename("perceiver.input_preprocessor.padding.label"),
            rename("perceiver.decoder.padding.image", "queries.video_padding"),
            rename("perceiver.decoder.padding.audio", "queries.audio_padding"),
            rename("perceiver.decoder.padding.label", "queries.label_padding"),
            rename(f"{MODALITIES}.label.decoder.output_position_encodings.position_embeddings", "queries.label_query"),
            *under("perceiver.decoder.decoder.decoding_cross_attention", "perceiver.decoder", CROSS),
            rename("perceiver.decoder.decoder.final_layer.{p}", "project.{p}"),
            *(
                rename(f"perceiver.output_postprocessor.modalities.{name}.classifier.{{p}}", f"{name}_head.{{p}}")
                for name in ("image", "audio", "label")
            ),
        ),
        size="takes videos of the output_shape in its config.json",
    ),
}


def architecture(config: Mapping[str, Any], where: str) -> str:
    """The class named by config.json. Raises CheckpointError if it is not a released Perceiver."""
    names = config.get("architectures")
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str) and name in ARCHITECTURES:
            return name
    raise CheckpointError(
        f"{where}: expected one of {', '.join(ARCHITECTURES)} under `architectures`, got {shown(names)}; save the "
        f"model as one of these classes, or {OWN_MODULE}. (A config.json does not say which preprocessor and decoder a "
        "PerceiverModel has.)"
    )


def load(directory: Path, options: LoadOptions = DEFAULT) -> LoadedCheckpoint:
    """Read a directory written by `save_pretrained`.

    Args:
        directory: The directory.
        options: `image_size` sets the input size of the Fourier and conv classifiers, which take any. Its default is
            that of preprocessor_config.json, else of the config, else 224 x 224, which the notes then state.

    Raises:
        CheckpointError: Class, settings or tensors do not fit.
        UsageError: A size that the class can't have.
    """
    path = directory / "config.json"
    raw = read_json(path)
    name = architecture(raw, str(path))
    found, settings = ARCHITECTURES[name], complete(raw, str(path))
    processor = read_image_processor(directory) if found.family in IMAGE_FAMILIES else None
    if found.size:
        options.refuse(("image_size",), f"{name} {found.size}")
        size = InputSize(None)
    else:
        size = input_size(directory, settings, options, name, processor)
    config = found.config(settings, size.pixels)
    stated = processing(directory, FAMILIES[found.family], config, processor)
    weights = read_tensors(find_weights(directory))
    module = filled(found.build, config, weights, found.rules, str(path))
    return LoadedCheckpoint(
        module,
        found.family,
        config,
        labels=settings["id2label"],
        notes=(*size.notes, *stated.notes),
        processing=stated.processing,
    )
