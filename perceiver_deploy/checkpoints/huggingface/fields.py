"""Fields of a Hugging Face Perceiver's config.json: conditions and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from perceiver_deploy.checkpoints.class_names import class_names
from perceiver_deploy.checkpoints.fields import (
    FLAG,
    HEADS,
    LAYERS,
    MAX_POINTS,
    MAX_WIDTH,
    OBJECT,
    PAIR,
    SIDE,
    VOCABULARY,
    WIDENING,
    WIDTH,
    Field,
    choice,
    either,
    few_points,
    listed,
    optional,
    read,
    whole,
)
from perceiver_runtime.errors import CheckpointError

Size = tuple[int, int]
Json = Mapping[str, Any]
RELEASED_SIZE = (224, 224)
"""Pixels of the released classifiers' images."""

FIELDS: Mapping[str, Field] = {
    "num_latents": Field(WIDTH, 256),
    "d_latents": Field(WIDTH, 1280),
    "d_model": Field(WIDTH, 768),
    "num_blocks": Field(LAYERS, 1),
    "num_self_attends_per_block": Field(LAYERS, 26),
    "num_self_attention_heads": Field(HEADS, 8),
    "num_cross_attention_heads": Field(HEADS, 8),
    "qk_channels": Field(optional(WIDTH), None),
    "v_channels": Field(optional(WIDTH), None),
    "cross_attention_shape_for_attention": Field(choice("q", "kv"), "kv"),
    "self_attention_widening_factor": Field(WIDENING, 1),
    "cross_attention_widening_factor": Field(WIDENING, 1),
    "hidden_act": Field(choice("gelu"), "gelu"),
    "use_query_residual": Field(FLAG, True),
    "vocab_size": Field(VOCABULARY, 262),
    "max_position_embeddings": Field(whole(1, MAX_POINTS), 2048),
    "image_size": Field(either(SIDE, PAIR), 56),
    "train_size": Field(either(SIDE, PAIR), [368, 496]),
    "num_frames": Field(whole(1, 4096), 16),
    "audio_samples_per_frame": Field(whole(1, MAX_WIDTH), 1920),
    "samples_per_patch": Field(whole(1, MAX_WIDTH), 16),
    "output_shape": Field(listed(SIDE, range(4, 5)), [1, 16, 224, 224]),
    "output_num_channels": Field(WIDTH, 512),
    "_label_trainable_num_channels": Field(WIDTH, 1024),
    "num_labels": Field(optional(WIDTH), None),
    "id2label": Field(optional(OBJECT), None),
}
"""What a field of config.json must be, and what it means where it is left out."""
DEFAULT_IMAGE_SIZE = FIELDS["image_size"].default
"""Written into every config by transformers, whatever the model: it says nothing about the size of its images."""


def complete(config: Json, where: str) -> dict[str, Any]:
    """Every setting, checked, with defaults filled in.

    Raises CheckpointError for invalid values, and for settings that the reference models do not support.
    """
    full = read(config, FIELDS, where)
    width, values = full["d_latents"], full["v_channels"] or full["qk_channels"]
    if values is not None and values != width:
        raise CheckpointError(
            f"{where}: expected v_channels (or else qk_channels) equal to d_latents {width}, got {values}; "
            "the latents' residual needs it"
        )
    for size in ("image_size", "train_size"):
        few_points(where, size, pair(full[size]))
    few_points(where, "output_shape", full["output_shape"])
    few_points(where, "num_frames x audio_samples_per_frame", (full["num_frames"], full["audio_samples_per_frame"]))
    if full["output_shape"][0] != 1:
        raise CheckpointError(f"{where}: output_shape: expected [1, frames, height, width], got {full['output_shape']}")
    return {**full, "where": where, "id2label": class_names(full["id2label"] or {}, where)}


def pair(size: Any) -> Size:
    """Height and width of a size that is given as a pair or as one number."""
    height, width = (size, size) if isinstance(size, int) else size
    return height, width
