"""The reader agrees with the safetensors package on good files and refuses every kind of bad one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from perceiver_runtime.errors import BundleError
from perceiver_runtime.format.safetensors import DTYPES, load_tensors


def _write(path: Path, header: Any, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def _entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


@pytest.mark.parametrize("dtype", DTYPES.values())
def test_every_dtype_reads_as_written(tmp_path: Path, dtype: str) -> None:
    random = np.random.default_rng(0)
    arrays = {
        "matrix": random.integers(0, 2, (3, 5)).astype(dtype),
        "scalar": np.ones((), dtype),
        "empty": np.ones((0, 4), dtype),
    }
    save_file(arrays, tmp_path / "a.safetensors", metadata={"made": "by a test"})
    read = load_tensors(tmp_path / "a.safetensors")
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        np.testing.assert_array_equal(read[name], array)
        assert not read[name].flags.writeable
        assert not read[name].flags.owndata


BAD = {
    "empty": (b"", None, "can't map"),
    "short": (b"abc", None, "got 3 bytes"),
    "header longer than the file": ((1000).to_bytes(8, "little") + b"{}", None, "does not fit"),
    "no JSON": (b"{nope", b"", "no JSON"),
    "not UTF-8": (b"\xff\xfe{}", b"", "no JSON"),
    "list": ([1], b"", "expected an object"),
    "name twice": (b'{"a": 1, "a": 2}', b"", "twice"),
    "unknown field": ({"a": {**_entry(), "x": 1}}, bytes(8), "expected dtype"),
    "no entry": ({"a": 3}, b"", "expected dtype"),
    "BF16": ({"a": _entry("BF16", (2,), (0, 4))}, bytes(4), "BF16"),
    "negative size": ({"a": _entry(shape=(-2,))}, bytes(8), "malformed"),
    "boolean size": ({"a": _entry(shape=(True, 2))}, bytes(8), "malformed"),
    "three offsets": ({"a": _entry(offsets=(0, 4, 8))}, bytes(8), "malformed"),
    "wrong length": ({"a": _entry(offsets=(0, 4))}, bytes(4), "needs 8 bytes, got 4"),
    "reversed": ({"a": _entry(offsets=(8, 0))}, bytes(8), "needs 8 bytes"),
    "hole": ({"a": _entry(), "b": _entry(offsets=(12, 20))}, bytes(20), "offset 8, got 12"),
    "overlap": ({"a": _entry(), "b": _entry(offsets=(4, 12))}, bytes(12), "offset 8, got 4"),
    "cut short": ({"a": _entry()}, bytes(7), "expected 8 bytes"),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b"", "expected texts by name"),
    "tail": ({"a": _entry()}, bytes(9), "expected 8 bytes"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused(tmp_path: Path, case: str) -> None:
    header, data, message = BAD[case]
    path = tmp_path / "bad.safetensors"
    if data is None:
        path.write_bytes(header)  # type: ignore[arg-type]
    else:
        _write(path, header, data)
    with pytest.raises(BundleError, match=message):
        load_tensors(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="can't map"):
        load_tensors(tmp_path / "none.safetensors")
