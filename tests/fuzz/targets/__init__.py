"""Readers of untrusted input, each with a generator of damaged input. Right is a PerceiverError, or what is in it."""

from __future__ import annotations

from collections.abc import Mapping

from fuzz.targets import arrays, bundles, checkpoints, graphs, media, records
from fuzz.targets.reading import Prepare

TARGETS: Mapping[str, tuple[Prepare, int]] = {
    "manifest, structured": (bundles.manifest, 40),
    "manifest, bytes": (bundles.manifest_bytes, 40),
    "bundle directory": (bundles.directory, 40),
    "ONNX graphs, bytes, run": (graphs.run, 4),
    "ONNX graphs, structure": (graphs.structure, 40),
    "ONNX graphs, structure, loaded": (graphs.loaded, 4),
    "ONNX graphs, structure, parsed": (graphs.exported, 20),
    "external data of graphs": (graphs.external, 100),
    "safetensors header": (arrays.safetensors_header, 100),
    "golden sample, bytes": (arrays.golden, 100),
    ".npy": (arrays.numpy_file("npy"), 100),
    ".npz": (arrays.numpy_file("npz"), 60),
    ".npz, compressed": (arrays.numpy_file("zip"), 60),
    "samples, .npz": (arrays.samples("npz"), 40),
    "samples, .csv": (arrays.samples("csv"), 100),
    "samples, .jsonl": (arrays.samples("jsonl"), 100),
    "calibration cache": (arrays.statistics, 40),
    "tuning": (bundles.tuning, 100),
    "build kit": (bundles.kit, 20),
    "engine sidecar": (bundles.sidecar, 100),
    "JSON, bytes": (bundles.json_bytes, 200),
    "report of a board": (records.report, 40),
    "report of a board, bytes": (records.report_bytes, 40),
    "results of boards": (records.results, 100),
    "history of benchmarks": (records.history, 100),
    "trtexec and layers": (records.trtexec, 40),
    "precision record": (
        records.record("perceiver_exporters.precision.record", "load_record", "ComponentPrecision"),
        60,
    ),
    "tegrastats lines": (records.tegrastats, 200),
    "tokenizer": (media.tokenizer, 100),
    "ranges": (records.ranges, 200),
    "images": (media.images, 60),
    "sounds": (media.sounds, 100),
    "texts": (media.texts, 100),
    "replay": (records.replays, 100),
    "checkpoint config": (checkpoints.config, 4),
    "checkpoint, pickle": (checkpoints.weights("pt"), 40),
    "checkpoint, safetensors": (checkpoints.weights("safetensors"), 60),
    "checkpoint, shard index": (checkpoints.shards, 60),
}
"""Name, preparation in an empty folder, and the share of inputs: slow readers get fewer."""
