"""One pass of the reference over the calibration set, which fills the statistics of all components."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from pathlib import Path

import onnx_ir as ir
from safetensors import SafetensorError

from perceiver_exporters.component import Cut
from perceiver_exporters.precision.calibration.observe import ObservedGraph
from perceiver_exporters.precision.calibration.statistics import Statistics
from perceiver_exporters.precision.calibration.store import Store
from perceiver_exporters.precision.emulation import observe_sites
from perceiver_exporters.precision.integers.layers import weighted
from perceiver_exporters.reference import Reference
from perceiver_exporters.stream import FeedStream
from perceiver_exporters.weights import samples_sha256, weights_sha256
from perceiver_runtime.progress import report, track

LOGGER = logging.getLogger(__name__)
SAVE_SECONDS = 10.0
"""Seconds between saves: the work that an interruption may cost."""


def calibrate(
    cut: Cut,
    graphs: Mapping[str, ir.Model],
    samples: FeedStream,
    cache: Path | None = None,
    attention: bool = False,
) -> dict[str, Statistics]:
    """Statistics of every component on its own inputs, as the reference computes them.

    Samples are processed one by one, in constant memory.

    Args:
        cut: The model.
        graphs: FP32 graphs by component.
        samples: Calibration inputs of the pipeline.
        cache: Directory of statistics (None: none). Those of the same graphs, weights and samples are read from it,
            those of an interrupted run are continued. A directory that can't be written is reported as a warning.
        attention: Whether the operands of attention are observed as well.

    Returns:
        Statistics by component.

    Raises:
        CheckError: An activation is NaN or infinite.
        UnavailableError: onnxruntime is missing.
    """
    stores = _stores(cut, graphs, samples, cache, attention) if cache is not None else {}
    statistics = {name: stores[name].load() if name in stores else Statistics() for name in graphs}
    done = min((each.samples for each in statistics.values()), default=len(samples))
    if done < len(samples):
        report(f"calibration: samples {done + 1} to {len(samples)}")
        _run(cut, graphs, samples, statistics, stores, attention)
    elif cache is not None:
        report("calibration: statistics of the same graphs, weights and samples were cached")
    return statistics


def _run(
    cut: Cut,
    graphs: Mapping[str, ir.Model],
    samples: FeedStream,
    statistics: dict[str, Statistics],
    stores: Mapping[str, Store],
    attention: bool,
) -> None:
    observed = {name: ObservedGraph(graph, attention) for name, graph in graphs.items() if weighted(graph.graph)}
    saved = time.monotonic()
    for index, sample in enumerate(track(samples, "calibration")):
        behind = {name: each for name, each in statistics.items() if each.samples <= index}
        if not behind:
            continue
        for call in Reference(cut, scope=observe_sites(cut, behind, attention)).calls(sample):
            if call.component in observed and call.component in behind:
                observed[call.component].see(call.inputs, behind[call.component])
        for each in behind.values():
            each.samples = index + 1
        last = index + 1 == len(samples)
        if last or time.monotonic() - saved > SAVE_SECONDS:
            stores = _saved(stores, statistics)
            saved = time.monotonic()


def _saved(stores: Mapping[str, Store], statistics: Mapping[str, Statistics]) -> Mapping[str, Store]:
    """Save, and return the stores to save to next time: none if the directory can't be written."""
    try:
        for name, store in stores.items():
            store.save(statistics[name])
    except (OSError, SafetensorError) as error:
        LOGGER.warning("calibration statistics are not kept for the next export: %s", error)
        return {}
    return stores


def _stores(
    cut: Cut, graphs: Mapping[str, ir.Model], samples: FeedStream, cache: Path, attention: bool
) -> dict[str, Store]:
    """Statistics depend on a component's graph, on all modules before it, on the samples, and on what is observed."""
    observed = ("attention",) if attention else ()
    weights = [weights_sha256(component.module) for component in cut.components]
    data = samples_sha256(samples)
    return {
        name: Store(cache, name, _sha256(graph), data, repr(cut.pipeline), *weights, *observed)
        for name, graph in graphs.items()
    }


def _sha256(graph: ir.Model) -> str:
    return hashlib.sha256(ir.to_proto(graph).SerializeToString(deterministic=True)).hexdigest()
