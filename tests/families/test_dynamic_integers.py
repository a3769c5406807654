"""Every family in dynamic INT8 with 7-bit weights: no product in floating point but what is declared, parity held."""

from __future__ import annotations

from pathlib import Path

import pytest
from factories.families import SMALL, small_model

from perceiver_deploy.api.verify import verify
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import export_bundle
from perceiver_exporters.precision.options import QuantizationOptions
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime.manifest import Source

QUICK = ("classic-perceiver", "hybrid", "image-classifier-conv")
"""Those with weights that blocks share, with LSTMs, and with a convolution in front."""

pytestmark = pytest.mark.xdist_group("families")


@pytest.mark.parametrize("family", [pytest.param(f, marks=() if f in QUICK else pytest.mark.full) for f in SMALL])
def test_it_holds_its_tolerances_and_its_claims(family: str, tmp_path: Path) -> None:
    model = small_model(family)
    source = Source("small", family, weights_sha256(model.module), {}, pretrained=False)
    blueprint = Blueprint(source, model.cut, (model.feeds,), ())
    export_bundle(blueprint, tmp_path / "b", "int8-dynamic", quantization=QuantizationOptions(reduce_range=True))
    verification = verify(tmp_path / "b")
    assert verification.breaches == ()
    assert [report for report in verification.parity.reports if not report.passed] == []
    report = load_record(tmp_path / "b" / PATH)
    assert all(entry.kernels in ({}, {"int8-dynamic": 1.0}) for entry in report)
    assert any(entry.kernels for entry in report)
    assert all(entry.weighted == 1.0 for entry in report if not entry.kept)
