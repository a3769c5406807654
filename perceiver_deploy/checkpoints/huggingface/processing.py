"""What a Hugging Face checkpoint says of its processing: its image processor, its tokenizer, or its class alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perceiver_deploy.checkpoints.huggingface.image_processor import PREPROCESSOR, FoundProcessing, with_size
from perceiver_deploy.checkpoints.huggingface.tokenizer import read_tokenizer
from perceiver_deploy.families import Family
from perceiver_deploy.families.image_classifier import IMAGE_CLASSIFIERS
from perceiver_runtime.processing.pixels import final_size
from perceiver_runtime.settings import Processing

IMAGE_FAMILIES = frozenset(family.name for family in IMAGE_CLASSIFIERS)


def processing(directory: Path, family: Family, config: Any, processor: FoundProcessing | None) -> FoundProcessing:
    """The processing of a checkpoint, with notes on what is assumed.

    Args:
        directory: The checkpoint.
        family: The model's family.
        config: The model's config.
        processor: Its image processor, if it has one.

    Returns:
        For images what preprocessor_config.json states, for texts what tokenizer_config.json states, and else what the
        class alone determines.

    Raises:
        CheckpointError: A value that no processor or tokenizer takes.
    """
    if family.name in IMAGE_FAMILIES:
        return _images(config, processor)
    released = family.processing(config) if family.processing is not None else Processing()
    if released.text is None:
        return FoundProcessing(released)
    return FoundProcessing(read_tokenizer(directory, released, config.vocabulary))


def _images(config: Any, processor: FoundProcessing | None) -> FoundProcessing:
    if processor is None:
        return FoundProcessing(
            Processing(refusal=f"the checkpoint has no {PREPROCESSOR}, which says how images are made")
        )
    size = (config.height, config.width)
    if processor.image is None or final_size(processor.image) in ((), size):
        return processor
    return with_size(processor, size)
