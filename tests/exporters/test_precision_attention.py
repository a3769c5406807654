"""Attention in int8: an option of int8 for processors, emulated, proven, placed and recorded like any layer."""

from __future__ import annotations

import json

import onnx_ir as ir
import pytest
from onnx_ir.passes import common

from perceiver_exporters.component import Blueprint
from perceiver_exporters.ir.graph import has_constant_weight, products
from perceiver_exporters.precision import PRECISIONS
from perceiver_exporters.precision.integers.attention import attentions, left_range, right_range
from perceiver_exporters.precision.integers.qdq import reads_integers
from perceiver_exporters.precision.options import QuantizationOptions
from perceiver_exporters.precision.placement.pareto import TABLE
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime import verify
from perceiver_runtime.errors import UsageError

from .conftest import Bundle
from .test_precision_placement import agreement


def _attended(model: ir.Model) -> int:
    """Quantised products of two activations."""
    common.ShapeInferencePass()(model)  # a stored graph does not say what types its nodes have
    return sum(reads_integers(node) and not has_constant_weight(node) for node in products(model.graph))


def test_ranges() -> None:
    assert left_range((0.0, 0.51)) == (pytest.approx(0.002), 0)  # a softmax
    assert left_range((-1.27, 1.0)) == (pytest.approx(0.01), 128)  # queries
    assert right_range((-1.28, 1.0)) == (pytest.approx(0.02), 0)
    assert left_range((0.0, 0.0))[0] == right_range((0.0, 0.0))[0] == 1


def test_the_bundle_has_what_was_placed(bundle: Bundle, blueprint: Blueprint) -> None:
    options = QuantizationOptions(smooth=False, attention=True, budget=agreement(blueprint, 100.0))
    path, manifest = bundle("int8", quantization=options)
    record = {entry.component: entry for entry in load_record(path / PATH)}
    assert record["processor_block"].attention == ("0.attention (products)", "1.attention (products)")
    assert record["processor_block"].ranges == "minmax, attention in int8"
    assert record["processor_block"].overall == 1.0
    for name, entry in record.items():
        assert _attended(ir.load(path / manifest.component(name).onnx)) == 2 * len(entry.attention)
    order = json.loads((path / TABLE).read_text())["order"]
    errors = {each["layer"]: each["error"] for each in order}
    assert errors["0.attention (products)"] > 0
    assert verify(path).passed


def test_without_the_option_attention_stays_in_floating_point(graphs: dict[str, ir.Model]) -> None:
    found = attentions(graphs["processor_block"].graph)
    assert [each.layer for each in found] == ["0.attention (products)", "1.attention (products)"]
    assert _attended(graphs["processor_block"]) == 0


@pytest.mark.parametrize(("precision", "target"), [("fp32", "cpu"), ("int8-dynamic", "cpu"), ("int8", "rtx")])
def test_only_int8_for_processors_has_it(precision: str, target: str) -> None:
    with pytest.raises(UsageError, match=f"--quantize-attention.* int8 for target cpu, got {precision} for {target}"):
        PRECISIONS[precision].check(QuantizationOptions(attention=True), TARGETS[target])
