"""Exports of the shipped models equal the recorded ones: a change of them is a decision (see exports.py)."""

import json

import numpy as np
import pytest
from baseline.exports import MODELS, PRECISIONS, RECORD, describe, export, processor

RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))
RTOL = 1e-4
"""Of an array's norm: another processor's FP32 sums in constants, and integers that these push over a half."""


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_export_equals_the_recorded_one(tmp_path, model, precision):
    """Structures always; bytes on the processor that recorded them, elsewhere projections of the contents."""
    expected = RECORDED["exports"][f"{model} {precision}"]
    got = json.loads(json.dumps(describe(export(model, precision, tmp_path), precision)))
    assert got.keys() == expected.keys()
    for name, part in expected.items():
        assert got[name].get("structure") == part.get("structure"), f"{name}: nodes or their wiring changed"
        assert len(got[name]["projections"]) == len(part["projections"]), name
        for (projection, norm), (known, known_norm) in zip(got[name]["projections"], part["projections"], strict=True):
            assert abs(projection - known) <= RTOL * max(known_norm, 1e-12), name
            np.testing.assert_allclose(norm, known_norm, rtol=RTOL, err_msg=name)
        if processor() == RECORDED["processor"]:
            assert got[name]["bytes"] == part["bytes"], f"{name}: equal structure, other bytes"
