"""An engine is held against its graph: as many products in the bundle's precision, or the build fails."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from perceiver_exporters.engines import _prove
from perceiver_runtime.errors import CheckError
from perceiver_runtime.tensorrt.builder.bundle import EngineReport

from .conftest import Bundle

WEIGHTED = 12
PRODUCTS = 16


def built(products: Mapping[str, int]) -> tuple[EngineReport, ...]:
    return (EngineReport("processor_block", "rtx", 1.0, 1000, 10, products, "", ()),)


@pytest.mark.parametrize(("precision", "expected"), [("fp16", PRODUCTS), ("int8", WEIGHTED)])
def test_an_engine_in_another_precision_fails(precision: str, expected: int, bundle: Bundle) -> None:
    path, _ = bundle(precision, target="rtx")
    _prove(path, built({precision: expected, "fp32": PRODUCTS - expected}))
    message = rf"processor_block: expected {expected} matrix products in {precision}, found {expected - 1}"
    with pytest.raises(CheckError, match=message):
        _prove(path, built({precision: expected - 1, "fp32": 1}))
    with pytest.raises(CheckError, match="found 0"):
        _prove(path, built({"fp32": PRODUCTS}))
