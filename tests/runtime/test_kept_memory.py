"""Of a heavy graph ONNX Runtime keeps what one run needed; `benchmarks/memory.py` measures what that saves."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import tiny_bundles

from perceiver_runtime.backends import onnxruntime as backend
from perceiver_runtime.bundle import load_bundle

import onnxruntime as ort


@pytest.mark.parametrize(
    ("flops", "patterns"), [(backend.MAX_PATTERN_FLOPS, False), (backend.MAX_PATTERN_FLOPS - 1, True)]
)
@pytest.mark.parametrize("name", ["onnxruntime", backend.QUICK])
def test_light_graphs_alone_have_a_block_beside_their_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, flops: int, patterns: bool
) -> None:
    bundle = load_bundle(tiny_bundles.write(tmp_path / "b", tiny_bundles.full_model(), tiny_bundles.feeds()))
    opened: list[bool] = []
    original = ort.InferenceSession

    def session(path: str, options: Any, **rest: Any) -> Any:
        opened.append(options.enable_mem_pattern)
        return original(path, options, **rest)

    monkeypatch.setattr(ort, "InferenceSession", session)
    entry = dataclasses.replace(bundle.manifest.component("head"), flops=flops)
    graph = backend.open_backend(name, 1).load(bundle, entry)
    assert isinstance(graph, backend.Graph)
    if graph._later is not None:
        graph._later.result()
    assert opened == [patterns] * (2 if name == backend.QUICK else 1)
