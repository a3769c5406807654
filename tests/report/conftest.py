"""Reports that are made once: of the shipped model at two precisions, and of bundles with faults."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
import tiny_bundles
from onnx import numpy_helper

import perceiver_deploy
from perceiver_deploy.api.reporting import collect
from perceiver_deploy.api.reporting.data import ReportData
from perceiver_deploy.sources import source as sources
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_exporters.roofline.ceilings import Ceilings

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"
CEILINGS = Ceilings({"fp32": 1e11, "fp16": 9e10}, 1e10, "of a simulated machine")
"""Measuring takes seconds, and has tests of its own."""
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Made:
    """A report: its data and its page."""

    data: ReportData
    path: Path

    @property
    def page(self) -> str:
        return self.path.read_text(encoding="utf-8")


@pytest.fixture(scope="session", autouse=True)
def _ceilings() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collect, "measure_ceilings", lambda *_: CEILINGS)
        yield


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two precisions of the shipped model, with everything that can be measured here."""
    root = tmp_path_factory.mktemp("report")
    blueprint, traces = sources.blueprint(sources.resolve("fashion-perceiver")), SharedTraces()
    for precision in ("fp32", "fp16"):
        export_bundle(blueprint, root / precision, precision, tracer=traces)
    out = root / "report.html"
    bundles = [root / "fp32", root / "fp16"]
    return Made(perceiver_deploy.report(bundles, out, iterations=3, warmup=1, threads=1), out)


@pytest.fixture(scope="session")
def faulty(whole: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A bundle with hostile names, one that fails its parity, a damaged one; no reference of the first two is found."""
    root = tmp_path_factory.mktemp("faulty")
    bundles = [root / name for name in ("hostile<script>", "wrong", "damaged")]
    for bundle in bundles:
        shutil.copytree(whole.path.parent / "fp32", bundle)
    hostile, wrong, damaged = bundles
    for bundle in (hostile, wrong):
        tiny_bundles.change(bundle, lambda m: m["source"].update(name=HOSTILE))
    tiny_bundles.change(hostile, lambda m: m.update(golden_origin=HOSTILE, labels=[HOSTILE], tools={HOSTILE: HOSTILE}))
    _spoil(wrong / "onnx/decoder.onnx")
    tiny_bundles.rehash(wrong, "onnx/decoder.onnx")
    (damaged / "onnx/encoder.onnx").write_bytes(b"")
    out = root / "report.html"
    return Made(perceiver_deploy.report(bundles, out, iterations=2, warmup=0, threads=1), out)


def _spoil(path: Path) -> None:
    """Add 1 to a bias, so that only numbers tell."""
    model = onnx.load(path)
    bias = next(each for each in model.graph.initializer if list(each.dims) == [10])
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
    onnx.save(model, path)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium; without one the test is skipped, but not in continuous integration."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None and not os.environ.get("CI"):
        pytest.skip(f"needs one of {', '.join(PROGRAMS)}: apt-get install chromium")
    assert program is not None, f"continuous integration needs one of {', '.join(PROGRAMS)}"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=FLAGS.split())
        yield started
        started.close()
