"""REAL builds with TensorRT-RTX of components that use a weight twice or end in what INT8 quantises."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from engines.rtx import Subject, components, expected_products
from factories.modules import FOREIGN

from perceiver_exporters.ir.trace import SharedTraces
from perceiver_runtime.tensorrt.api import load_tensorrt


@pytest.mark.parametrize("name", ["twice", "tied", "dense", "conv-twice", "read"])
def test_int8_builds(name: str, tmp_path: Path) -> None:
    subject = Subject(FOREIGN[name].blueprint(), SharedTraces())
    for graph, built in components(load_tensorrt("tensorrt_rtx"), subject, "int8", tmp_path):
        assert Counter(built.sidecar.products) == expected_products(graph, "int8")
