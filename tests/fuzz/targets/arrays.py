"""Arrays: safetensors, golden samples, NumPy's files, data of the user's, cached statistics of a calibration."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.targets.bundles import tiny
from fuzz.targets.reading import OfBytes, OfJson, Once, Prepare

from perceiver_runtime.errors import BundleError
from perceiver_runtime.evaluation.interface import Interface
from perceiver_runtime.format import arrays
from perceiver_runtime.format.safetensors import load_file
from perceiver_runtime.golden import parse_sample
from perceiver_runtime.tensors import Profile, Range, TensorSpec

LOGITS = TensorSpec("logits", "float32", ("batch", 2))
PIXELS = Interface((TensorSpec("x", "float32", ("batch", 4)),), (LOGITS,))
TEXTS = Interface((TensorSpec("ids", "int64", ("batch", "length")),), (LOGITS,), labels=("no", "yes"))


def safetensors_header(folder: Path) -> Once:
    whole = {
        "a": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
        "b": {"dtype": "I64", "shape": [4], "data_offsets": [32, 64]},
        "__metadata__": {"same": "{}"},
    }

    def read(record: Any) -> None:
        text = json.dumps(record).encode()
        (folder / "x").write_bytes(len(text).to_bytes(8, "little") + text + bytes(64))
        load_file(folder / "x")

    return OfJson(whole, read)


def golden(folder: Path) -> Once:
    whole = (tiny(folder) / "golden/sample-0.safetensors").read_bytes()
    return OfBytes((whole,), lambda data: parse_sample(data, folder / "x"))


SAVED: dict[str, Callable[..., None]] = {
    "npy": lambda file, x, logits: np.save(file, x),
    "npz": lambda file, x, logits: np.savez(file, x=x),
    "zip": lambda file, x, logits: np.savez_compressed(file, x=x),
    "data": lambda file, x, logits: np.savez(file, x=x, logits=logits),
}


def _saved(form: str) -> bytes:
    file = io.BytesIO()
    SAVED[form](file, np.ones((2, 4), np.float32), np.array([0, 1]))
    return file.getvalue()


def numpy_file(form: str) -> Prepare:
    def prepare(folder: Path) -> Once:
        path = folder / ("x.npy" if form == "npy" else "x.npz")

        def read(data: bytes) -> None:
            path.write_bytes(data)
            pairs = [] if path.suffix == ".npz" else [f"x={path}"]
            stored = arrays.stored_feeds(None if pairs else path, pairs)
            arrays.load(stored, PIXELS.inputs, (Profile("p", {"batch": Range(1, 1, 8)}),))

        return OfBytes((_saved(form),), read)

    return prepare


TABLES = {
    "csv": b'text,label\n"a, ""b""",no\nc,1\n',
    "jsonl": b'{"text": "\\u00e4b", "label": "no"}\n\n{"text": "c", "label": 1}\n',
}


def samples(suffix: str) -> Prepare:
    """Samples for calibration and evaluation, in a file of the user's."""

    def prepare(folder: Path) -> Once:
        from perceiver_deploy.data.open import open_data

        path, interface = folder / f"x.{suffix}", PIXELS if suffix == "npz" else TEXTS

        def read(data: bytes) -> None:
            path.write_bytes(data)
            source = open_data(path)
            source.first()
            for _ in source.read(interface, np.arange(source.count(interface))):
                pass

        return OfBytes((_saved("data") if suffix == "npz" else TABLES[suffix],), read)

    return prepare


def statistics(folder: Path) -> Once:
    """A damaged cache is no error: its statistics are taken again."""
    from perceiver_exporters.precision.calibration import store
    from perceiver_exporters.precision.calibration.histogram import Histogram
    from perceiver_exporters.precision.calibration.statistics import Observed, Statistics

    logging.getLogger(store.__name__).setLevel(logging.ERROR)
    kept = store.Store(folder, "key")
    low, high = np.zeros(2, np.float32), np.ones(2, np.float32)
    observed = Observed(Histogram(1.0, 0.0, 1.0, np.ones(8, np.int64)), low, high)
    kept.save(Statistics(4, {"a": observed}, {"b": observed}))
    whole = kept.path.read_bytes()

    def read(data: bytes) -> None:
        kept.path.write_bytes(data)
        found = kept.load()
        if not found.samples:
            raise BundleError("refused: its statistics are taken again")
        if found.samples != 4:
            raise AssertionError(f"{found.samples} samples of a damaged cache")

    return OfBytes((whole,), read)
