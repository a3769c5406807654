"""krasserm/perceiver-io models written by `save_pretrained` (version 0.7 and later).

The package's own checkpoints (`.ckpt` of PyTorch Lightning) contain Python objects and are refused: save the model with
`save_pretrained` where it was trained.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from perceiver_deploy.checkpoints.class_names import class_names
from perceiver_deploy.checkpoints.fields import OBJECT, WIDTH, Field, few_points, number, optional, read
from perceiver_deploy.checkpoints.files.json_file import read_json
from perceiver_deploy.checkpoints.files.tensors import find_weights, read_tensors
from perceiver_deploy.checkpoints.filling import filled
from perceiver_deploy.checkpoints.krasserm import config
from perceiver_deploy.checkpoints.krasserm.fields import CLASSES, DECODER, ENCODER, IMAGE, MODEL, PATCHES, TOKENS
from perceiver_deploy.checkpoints.loaded import DEFAULT, OWN_MODULE, LoadedCheckpoint, LoadOptions
from perceiver_deploy.checkpoints.renaming import Rule, rename, under
from perceiver_deploy.models.flow import OpticalFlow
from perceiver_deploy.models.image_classifier import ImageClassifier, RepeatedClassifier
from perceiver_deploy.models.text import MaskedLanguageModel, SequenceClassifier
from perceiver_runtime.errors import CheckpointError

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """One model type of the package: its family, config and model, and the renaming of its tensors.

    `encoder` and `decoder` are conditions on the fields of these parts of its config.
    """

    family: str
    config: Callable[[Json, Json, Json], Any]
    build: Callable[[Any], nn.Module]
    rules: tuple[Rule, ...]
    encoder: Mapping[str, Field]
    decoder: Mapping[str, Field]


ATTENTION = tuple(
    (f"attention.{n}_proj.{{p}}", f"attention.{name}.{{p}}")
    for n, name in zip("qkvo", ("query", "key", "value", "output"), strict=True)
)
MLP = (("0.{p}", "mlp_norm.{p}"), ("1.{p}", "mlp.0.{p}"), ("3.{p}", "mlp.2.{p}"))
CROSS = (("q_norm.{p}", "query_norm.{p}"), ("kv_norm.{p}", "input_norm.{p}"), *ATTENTION)
SELF = (("norm.{p}", "norm.{p}"), *ATTENTION)


def _cross(source: str, target: str) -> tuple[Rule, ...]:
    """A cross-attention layer; without the queries' residual the package has no `module` around its attention."""
    return (
        *under(f"{source}.0.module", target, CROSS),
        *under(f"{source}.0", target, CROSS),
        *under(f"{source}.1.module", target, MLP),
    )


def _block(source: str, target: str) -> tuple[Rule, ...]:
    return (
        *under(f"{source}.{{i}}.0.module", f"{target}.{{i}}", SELF),
        *under(f"{source}.{{i}}.1.module", f"{target}.{{i}}", MLP),
    )


ANSWER = (rename("1.output_query_provider._query", "query"), rename("1.output_adapter.linear.{p}", "head.{p}"))
TRUNK = (
    rename("0.latent_provider._query", "perceiver.latents"),
    *_cross("0.cross_attn_1", "perceiver.encoder"),
    *_block("0.self_attn_1", "perceiver.block"),
    *_cross("1.cross_attn", "perceiver.decoder"),
    *ANSWER,
)
REPEATED_TRUNK = (
    rename("0.latent_provider._query", "latents"),
    *_cross("0.cross_attn_1", "readers.0"),
    *_cross("0.cross_attn_n", "readers.1"),
    *_block("0.self_attn_1", "blocks.0"),
    *_block("0.self_attn_n", "blocks.1"),
    *_cross("1.cross_attn", "decoder"),
    *ANSWER,
)
TEXT = (
    rename("0.input_adapter.txt_embedding.weight", "tokens.tokens.weight"),
    rename("0.input_adapter.pos_embedding.weight", "tokens.positions"),
)
# A function of the config alone, computed again in FP64.
POSITIONS = rename("0.input_adapter.position_encoding.position_encoding")

KINDS: dict[str, Kind] = {
    "perceiver-io-masked-language-model": Kind(
        "masked-language-model",
        config.masked_language_model,
        MaskedLanguageModel,
        (*TRUNK, *TEXT, rename("1.output_adapter.bias", "head.bias")),
        {**ENCODER, **TOKENS},
        {**DECODER, "num_output_query_channels": Field(optional(WIDTH))},
    ),
    "perceiver-io-text-classifier": Kind(
        "sequence-classifier",
        config.text_classifier,
        SequenceClassifier,
        (*TRUNK, *TEXT),
        {**ENCODER, **TOKENS},
        {**DECODER, **CLASSES},
    ),
    "perceiver-io-image-classifier": Kind(
        "image-classifier-fourier",
        config.image_classifier,
        ImageClassifier,
        (*TRUNK, POSITIONS),
        {**ENCODER, **IMAGE},
        {**DECODER, **CLASSES},
    ),
    "perceiver-io-optical-flow": Kind(
        "optical-flow",
        config.optical_flow,
        OpticalFlow,
        (*TRUNK, POSITIONS, rename("0.input_adapter.linear.{p}", "tokens.project.{p}")),
        {**ENCODER, **PATCHES},
        {**DECODER, "rescale_factor": Field(number(1e-30, 1e30))},
    ),
}


REPEATED: dict[str, Kind] = {
    "perceiver-io-image-classifier": Kind(
        "image-classifier-repeated",
        config.repeated_classifier,
        RepeatedClassifier,
        (*REPEATED_TRUNK, POSITIONS),
        {**ENCODER, **IMAGE},
        {**DECODER, **CLASSES},
    )
}
"""Types of which models that read their inputs repeatedly are supported."""
AUTOREGRESSIVE = "perceiver-ar-"


def recognises(config: Json) -> bool:
    """Whether a config.json was written by the package."""
    return str(config.get("model_type", "")).startswith(("perceiver-io-", AUTOREGRESSIVE))


def load(directory: Path, options: LoadOptions = DEFAULT) -> LoadedCheckpoint:
    """Read a directory written by the package's `save_pretrained`.

    Raises:
        CheckpointError: Model type, settings or tensors do not fit.
    """
    path = directory / "config.json"
    raw = read_json(path)
    kind = KINDS.get(raw["model_type"])
    if kind is None:
        known = f"expected model_type {', '.join(KINDS)}, got {raw['model_type']!r}"
        autoregressive = "Perceiver AR is not supported; " if raw["model_type"].startswith(AUTOREGRESSIVE) else ""
        raise CheckpointError(f"{path}: {autoregressive}{known}; {OWN_MODULE}")
    options.refuse(("image_size",), f"{path} holds the size of the model's inputs")
    where = f"{path}: model_config"
    model = read(raw.get("model_config"), MODEL, where)
    encoder = read(model["encoder"], kind.encoder, f"{where}.encoder")
    decoder = read(model["decoder"], kind.decoder, f"{where}.decoder")
    few_points(f"{where}.encoder", "image_shape", encoder.get("image_shape", ()))
    if config.repeated(encoder):
        kind = _repeated(raw["model_type"], f"{where}.encoder")
    settings = kind.config(model, encoder, decoder)
    module = filled(kind.build, settings, read_tensors(find_weights(directory)), kind.rules, str(path))
    return LoadedCheckpoint(module, kind.family, settings, labels=_labels(raw, decoder, str(path)))


def _repeated(model_type: str, where: str) -> Kind:
    """The kind of a model that reads its inputs repeatedly. Raises CheckpointError if there is none."""
    if (kind := REPEATED.get(model_type)) is None:
        raise CheckpointError(
            f"{where}: expected num_cross_attention_layers 1 and first_self_attention_block_shared true for "
            f"{model_type}; only {', '.join(REPEATED)} is read with others; {OWN_MODULE}"
        )
    return kind


def _labels(raw: Json, decoder: Json, where: str) -> tuple[str, ...]:
    """Names of the classes, if the config has them. Raises CheckpointError if there are more or fewer than classes."""
    if "num_classes" not in decoder or not raw.get("id2label"):
        return ()
    names = class_names(read(raw, {"id2label": Field(OBJECT)}, where)["id2label"], where)
    if len(names) != decoder["num_classes"]:
        raise CheckpointError(
            f"{where}: id2label: expected a name for each of the {decoder['num_classes']} classes (num_classes), got "
            f"{len(names)}"
        )
    return names
