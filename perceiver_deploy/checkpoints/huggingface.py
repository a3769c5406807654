"""Hugging Face Perceivers (`PerceiverFor...` of transformers), from a directory or the hub, into the reference models.

`config.json` decides the class; weights are safetensors, whole or sharded, or `.bin` files read without executing
pickles. Every tensor is accounted for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from perceiver_deploy.checkpoints import huggingface_config as configs
from perceiver_deploy.checkpoints.loaded import DEFAULT, LoadedCheckpoint, LoadOptions
from perceiver_deploy.checkpoints.renaming import Rule, rename, transfer, under
from perceiver_deploy.checkpoints.tensors import find_weights, read_json, read_tensors
from perceiver_deploy.models.flow import OpticalFlow
from perceiver_deploy.models.image_classifier import ImageClassifier
from perceiver_deploy.models.multimodal import MultimodalAutoencoder
from perceiver_deploy.models.text import MaskedLanguageModel, SequenceClassifier
from perceiver_runtime.errors import CheckpointError


@dataclass(frozen=True)
class Architecture:
    """One class of transformers: the family it belongs to, its config, its model, and where its tensors go."""

    family: str
    config: Callable[[Mapping[str, Any], configs.Size | None], Any]
    build: Callable[[Any], nn.Module]
    rules: tuple[Rule, ...]


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
    ),
    "PerceiverForImageClassificationFourier": Architecture(
        "image-classifier-fourier", configs.fourier_classifier, ImageClassifier, (*TRUNK, *CLASS_DECODER)
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
    ),
}


def architecture(config: Mapping[str, Any], origin: str) -> Architecture:
    """The class that config.json names. Raises CheckpointError for one that is not a released Perceiver."""
    names = config.get("architectures") or []
    for name in names:
        if name in ARCHITECTURES:
            return ARCHITECTURES[name]
    raise CheckpointError(
        f"{origin}: expected config.json to name one of {', '.join(ARCHITECTURES)} under `architectures`, got {names}"
    )


def load(directory: Path, options: LoadOptions = DEFAULT) -> LoadedCheckpoint:
    """Read a directory written by `save_pretrained`.

    `options.image_size` sets the input size of the Fourier and conv classifiers, which take any; others have theirs
    in the config. Raises CheckpointError if class, settings or tensors do not fit.
    """
    raw = read_json(directory / "config.json")
    found = architecture(raw, str(directory))
    config = found.config(configs.complete(raw), options.image_size)
    module = found.build(config)
    transfer(read_tensors(find_weights(directory)), found.rules, module, str(directory))
    return LoadedCheckpoint(module.eval(), found.family, config, labels=configs.label_names(raw))
