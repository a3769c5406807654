"""Readers of untrusted input, each with a generator of damaged input. Right is a PerceiverError, or what is in it."""

from __future__ import annotations

from collections.abc import Mapping

from fuzz.targets import arrays, bundles, checkpoints, graphs, media, records
from fuzz.targets.reading import Prepare

TARGETS: Mapping[str, tuple[Prepare, int]] = {
    "manifest, structured": (bundles.manifest, 5),
    "manifest, bytes": (bundles.manifest_bytes, 10),
    "bundle directory": (bundles.directory, 3),
    "ONNX graphs, bytes, run": (graphs.run, 1),
    "ONNX graphs, structure": (graphs.structure, 3),
    "ONNX graphs, structure, loaded": (graphs.loaded, 1),
    "ONNX graphs, structure, parsed": (graphs.exported, 1),
    "external data of graphs": (graphs.external, 90),
    "safetensors header": (arrays.safetensors_header, 50),
    "golden sample, bytes": (arrays.golden, 40),
    ".npy": (arrays.numpy_file("npy"), 30),
    ".npz": (arrays.numpy_file("npz"), 30),
    ".npz, compressed": (arrays.numpy_file("zip"), 20),
    "samples, .npz": (arrays.samples("npz"), 15),
    "samples, .csv": (arrays.samples("csv"), 40),
    "samples, .jsonl": (arrays.samples("jsonl"), 40),
    "calibration cache": (arrays.statistics, 40),
    "tuning": (bundles.tuning, 20),
    "build kit": (bundles.kit, 1),
    "engine sidecar": (bundles.sidecar, 20),
    "JSON, bytes": (bundles.json_bytes, 130),
    "report of a board": (records.report, 2),
    "report of a board, bytes": (records.report_bytes, 20),
    "results of boards": (records.results, 5),
    "history of benchmarks": (records.history, 5),
    "trtexec and layers": (records.trtexec, 15),
    "precision record": (
        records.record("perceiver_exporters.precision.record", "load_record", "ComponentPrecision"),
        15,
    ),
    "tegrastats lines": (records.tegrastats, 60),
    "tokenizer": (media.tokenizer, 60),
    "ranges": (records.ranges, 100),
    "images": (media.images, 25),
    "sounds": (media.sounds, 40),
    "texts": (media.texts, 40),
    "replay": (records.replays, 20),
    "checkpoint config": (checkpoints.config, 1),
    "checkpoint, pickle": (checkpoints.weights("pt"), 15),
    "checkpoint, safetensors": (checkpoints.weights("safetensors"), 30),
    "checkpoint, shard index": (checkpoints.shards, 20),
}
"""Name, preparation in an empty folder, and the share of inputs in thousandths: slow readers get fewer."""
