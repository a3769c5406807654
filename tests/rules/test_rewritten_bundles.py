"""Bundles of rewritten graphs keep their promises at every precision: proof, tolerances, golden samples."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from factories.weights import randomise

from perceiver_deploy.families import FAMILIES
from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import export_bundle
from perceiver_exporters.rules import stored_outcomes
from perceiver_exporters.weights import weights_sha256
from perceiver_runtime import verify
from perceiver_runtime.manifest import Source

from .conftest import SMALL

APPLIED = {
    "fourier": {"encoder": {"constant-query", "separable-positions"}},
    "conv": {"encoder": {"constant-query", "separable-positions"}},
    "language": {"encoder": {"constant-query", "token-tables"}, "decoder": {"gathered-query"}},
    "flow": {
        "encoder_fold": {"separable-positions"},
        "decoder": {"separable-queries", "folded-head"},
    },
}


FULL = pytest.mark.full


@pytest.mark.parametrize("precision", [pytest.param("fp32", marks=FULL), pytest.param("fp16", marks=FULL), "int8"])
@pytest.mark.parametrize("model", APPLIED)
def test_rewritten_bundles_verify(model, precision, tmp_path):
    family, config = FAMILIES[SMALL[model][0]], SMALL[model][1]
    module, random = randomise(family.build(config)), np.random.default_rng(0)
    blueprint = Blueprint(
        source=Source(model, family.name, weights_sha256(module), dataclasses.asdict(config), pretrained=False),
        cut=family.cut(module),
        golden=(family.sample(config, 2, random),),
        # As many as cover the golden rows: a folded head rounds a residual over a range of its own, which the emulation
        # of the module does not have, so what is clipped there is error that no tolerance foresees.
        calibration=tuple(family.sample(config, 32, random) for _ in range(2)),
    )
    manifest = export_bundle(blueprint, tmp_path / "bundle", precision)
    report = verify(tmp_path / "bundle")
    assert report.passed, report
    for component, expected in APPLIED[model].items():
        outcomes = stored_outcomes(tmp_path / "bundle" / manifest.component(component).onnx)
        assert expected <= {outcome.rule for outcome in outcomes if outcome.applied}
        assert manifest.component(component).flops == outcomes[-1].after.flops
