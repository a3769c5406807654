"""Six classes of transformers, saved by transformers and read by our importer, give transformers' outputs.

The seventh, multimodal, is in test_multimodal_parity.py.
"""

from __future__ import annotations

import pytest
import torch
from models.oracle import REDUCED, Case, exact_positions, normal, relative, saved, text

from perceiver_deploy.checkpoints import LoadOptions, huggingface

TOLERANCE = 1e-5
EXACT_TOLERANCE = 2e-6
"""Without transformers' own rounding of the positions."""

LANGUAGE = {"num_cross_attention_heads": 2, "qk_channels": 16, "v_channels": 32}
LANGUAGE_RELEASED = {"qk_channels": 256, "v_channels": 1280}
VISION_RELEASED = {
    "num_latents": 512,
    "d_latents": 1024,
    "num_blocks": 8,
    "num_self_attends_per_block": 6,
    "num_self_attention_heads": 8,
    "num_cross_attention_heads": 1,
    "num_labels": 1000,
    "image_size": 224,
}
FLOW_RELEASED = {
    "num_latents": 2048,
    "d_latents": 512,
    "num_self_attends_per_block": 24,
    "num_self_attention_heads": 16,
    "num_cross_attention_heads": 1,
}

CASES = [
    Case("PerceiverForMaskedLM", {**REDUCED, **LANGUAGE}, text(2, 20, 50)),
    Case("PerceiverForMaskedLM", {**REDUCED, **LANGUAGE, "self_attention_widening_factor": 2}, text(2, 13, 50)),
    Case("PerceiverForSequenceClassification", {**REDUCED, **LANGUAGE}, text(3, 17, 50)),
    Case(
        "PerceiverForSequenceClassification",
        {**REDUCED, "cross_attention_shape_for_attention": "q", "use_query_residual": False},
        text(2, 20, 50),
    ),
    Case("PerceiverForImageClassificationLearned", {**REDUCED, "image_size": 12}, normal("pixel_values", 2, 3, 12, 12)),
    Case("PerceiverForImageClassificationFourier", REDUCED, normal("pixel_values", 2, 3, 64, 48), (64, 48)),
    Case(
        "PerceiverForImageClassificationConvProcessing",
        {**REDUCED, "cross_attention_widening_factor": 3},
        normal("pixel_values", 2, 3, 224, 224),
    ),
    Case("PerceiverForImageClassificationConvProcessing", REDUCED, normal("pixel_values", 2, 3, 40, 52), (40, 52)),
    Case("PerceiverForOpticalFlow", {**REDUCED, "train_size": [12, 18]}, normal("inputs", 2, 2, 27, 12, 18)),
]
RELEASED = [
    Case("PerceiverForMaskedLM", LANGUAGE_RELEASED, text(1, 2048, 262)),
    Case("PerceiverForSequenceClassification", LANGUAGE_RELEASED, text(1, 2048, 262)),
    Case("PerceiverForImageClassificationLearned", VISION_RELEASED, normal("pixel_values", 1, 3, 224, 224)),
    Case("PerceiverForImageClassificationFourier", VISION_RELEASED, normal("pixel_values", 1, 3, 224, 224)),
    Case("PerceiverForImageClassificationConvProcessing", VISION_RELEASED, normal("pixel_values", 1, 3, 224, 224)),
    Case("PerceiverForOpticalFlow", FLOW_RELEASED, normal("inputs", 1, 2, 27, 368, 496)),
]


def compare(case: Case, directory) -> tuple[float, float]:
    """Relative L2 against transformers as it is, and against transformers with exact positions."""
    oracle = case.oracle()
    inputs = case.inputs()
    expected = oracle(**inputs).logits
    other = oracle(**case.inputs()).logits
    assert relative(other, expected) > 1e-2, "the oracle ignores its input: its parity would prove nothing"
    model = huggingface.load(saved(oracle, directory), LoadOptions(image_size=case.image_size)).module
    with exact_positions():
        exact = oracle(**inputs).logits
    del oracle
    got = model(*inputs.values())
    # transformers answers every position there is, whatever the length of the text
    length = got.shape[1]
    return relative(got, expected[:, :length]), relative(got, exact[:, :length])


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name.removeprefix("PerceiverFor"))
def test_equals_transformers(case, tmp_path):
    distance, exact = compare(case, tmp_path)
    assert distance < TOLERANCE
    assert exact < EXACT_TOLERANCE


@pytest.mark.full
@pytest.mark.parametrize("case", RELEASED, ids=lambda c: c.name.removeprefix("PerceiverFor"))
def test_equals_transformers_at_released_size(case, tmp_path):
    torch.set_num_threads(2)
    distance, exact = compare(case, tmp_path)
    print(f"{case.name}: relative L2 {distance:.2e}, with exact positions {exact:.2e}")
    assert distance < TOLERANCE
    assert exact < TOLERANCE


@pytest.mark.parametrize("case", CASES[:3:2], ids=lambda c: c.name.removeprefix("PerceiverFor"))
def test_the_mask_matters_and_may_be_left_out(case, tmp_path):
    oracle, inputs = case.oracle(), case.inputs()
    model = huggingface.load(saved(oracle, tmp_path)).module
    unmasked = model(inputs["input_ids"])
    assert relative(unmasked, oracle(inputs["input_ids"]).logits[:, : unmasked.shape[1]]) < TOLERANCE
    assert relative(unmasked, model(**inputs)) > 1e-2
    hidden = inputs["input_ids"].clone()
    hidden[0, hidden.shape[1] // 2 :] = 1
    assert torch.equal(model(hidden, inputs["attention_mask"])[0, :1], model(**inputs)[0, :1])
