from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from torch_threads import one_thread as one_thread

from perceiver_exporters.component import Blueprint
from perceiver_exporters.export import export_bundle
from perceiver_exporters.ir.trace import SharedTraces
from perceiver_exporters.precision.options import QuantizationOptions

from . import subjects

Healthy = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def sources() -> Mapping[str, Blueprint]:
    """What is broken, by name."""
    return {"perceiver": subjects.perceiver(), "loud": subjects.loud(), "long": subjects.long_attention()}


@pytest.fixture(scope="session")
def traces(sources: Mapping[str, Blueprint]) -> Mapping[str, SharedTraces]:
    """One tracer for each subject."""
    return {name: SharedTraces() for name in sources}


@pytest.fixture(scope="session")
def healthy(
    sources: Mapping[str, Blueprint],
    traces: Mapping[str, SharedTraces],
    tmp_path_factory: pytest.TempPathFactory,
) -> Healthy:
    """A subject's healthy bundle at a precision, exported once: as traced, for faults name nodes of the trace."""
    root = tmp_path_factory.mktemp("healthy")

    def make(subject: str, precision: str) -> Path:
        path = root / f"{subject}-{precision}"
        if not path.exists():
            options = {"quantization": QuantizationOptions(smooth=False)} if precision == "int8" else {}
            export_bundle(sources[subject], path, precision, tracer=traces[subject], rules=(), **options)  # type: ignore[arg-type]
        return path

    return make
