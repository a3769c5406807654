from __future__ import annotations

import pytest

from perceiver_exporters.rules.products.padded_channels import PADDED_CHANNELS

from .conftest import EXACT


@pytest.mark.parametrize(
    ("model", "component", "widths"),
    [("fourier", "encoder", "21 to 24"), ("conv", "encoder", "26 to 32"), ("flow", "encoder_fold", "34 to 40")],
)
def test_products_read_multiples_of_8(subject, model, component, widths):
    given = subject(model, component)
    graph, (outcome,) = given.rewritten(PADDED_CHANNELS, target="rtx", precision="fp16")
    assert outcome.applied
    assert widths in outcome.detail
    for node in graph.graph:
        if node.op_type == "MatMul" and ("key/" in str(node.name) or "value/" in str(node.name)):
            assert node.inputs[1].shape[0] % 8 == 0
    assert given.distance(graph) < EXACT


def test_declines_what_needs_no_padding(subject):
    for model, target, precision, reason in [
        ("language", "rtx", "fp16", "every product's width is a multiple of 8"),
        ("fourier", "rtx", "fp32", "FP32 products are not padded"),
        ("fourier", "cpu", "fp16", "not for onnxruntime"),
    ]:
        given = subject(model, "encoder")
        graph, (outcome,) = given.rewritten(PADDED_CHANNELS, target=target, precision=precision)
        assert not outcome.applied
        assert reason in outcome.detail
        assert given.distance(graph) == 0
