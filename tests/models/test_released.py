"""The table of released sizes: the parameters that were published, and the same configs as an import gives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models.test_huggingface_parity import FLOW_RELEASED, LANGUAGE_RELEASED, VISION_RELEASED
from models.test_multimodal_parity import RELEASED as MULTIMODAL_RELEASED

from perceiver_deploy.checkpoints.huggingface import ARCHITECTURES
from perceiver_deploy.checkpoints.huggingface.fields import complete
from perceiver_deploy.models.released import RELEASED

# mask.image, mask.audio (704 each) and padding.label (4) of transformers never act, and are no parameters of ours
UNUSED_BY_MULTIMODAL = 2 * 704 + 4
PUBLISHED = {
    "language-perceiver": ("PerceiverForMaskedLM", 201_108_230, LANGUAGE_RELEASED),
    "language-perceiver-classifier": ("PerceiverForSequenceClassification", 206_098_690, LANGUAGE_RELEASED),
    "vision-perceiver-learned": ("PerceiverForImageClassificationLearned", 62_255_848, VISION_RELEASED),
    "vision-perceiver-fourier": ("PerceiverForImageClassificationFourier", 48_440_627, VISION_RELEASED),
    "vision-perceiver-conv": ("PerceiverForImageClassificationConvProcessing", 48_646_522, VISION_RELEASED),
    "optical-flow-perceiver": ("PerceiverForOpticalFlow", 41_057_134, FLOW_RELEASED),
    "multimodal-perceiver": (
        "PerceiverForMultimodalAutoencoding",
        19_858_855 - UNUSED_BY_MULTIMODAL,
        MULTIMODAL_RELEASED.config,
    ),
}


def published(config: dict[str, Any]) -> dict[str, Any]:
    return complete({**config, "vocab_size": 262, "max_position_embeddings": 2048}, "config.json")


@pytest.mark.parametrize("name", RELEASED)
def test_parameters_are_those_published(name):
    build = ARCHITECTURES[PUBLISHED[name][0]].build
    with torch.device("meta"):
        model = build(RELEASED[name])
    assert sum(p.numel() for p in model.parameters()) == PUBLISHED[name][1]


@pytest.mark.parametrize("name", RELEASED)
def test_an_import_gives_the_released_config(name):
    architecture, _, config = PUBLISHED[name]
    assert ARCHITECTURES[architecture].config(published(config), None) == RELEASED[name]  # type: ignore[arg-type]
