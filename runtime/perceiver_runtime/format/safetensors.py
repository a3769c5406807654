"""Read safetensors files with NumPy alone: memory-mapped, zero-copy, read-only.

Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_runtime.errors import BundleError
from perceiver_runtime.format import strict_json
from perceiver_runtime.format.schema import shown
from perceiver_runtime.tensors import Array

DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
LENGTH_BYTES = 8
HEADER_LIMIT = 100_000_000
MAX_DIMENSIONS = 32
"""NumPy's limit before 2.0."""
MAX_SIZE = 1 << 48
"""Bytes or entries: more than any processor addresses."""


def load_tensors(path: Path) -> dict[str, Array]:
    """All tensors of a file by name: `load_file` without the metadata."""
    return load_file(path)[0]


def load_file(path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """All tensors of a file by name, as read-only views of the mapped file, and its metadata.

    Raises BundleError for anything that the format does not allow, and for types that NumPy lacks (BF16, F8).
    """
    return parse(_map(path), path)


def parse(data: bytes | mmap.mmap, path: Path) -> tuple[dict[str, Array], dict[str, str]]:
    """`load_file` of content that was read from `path` before; the tensors are views of it."""
    header, start = _header(data, path)
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise BundleError(f"{path}: metadata: expected texts by name, got {shown(metadata)}")
    _check_layout(header, len(data) - start, path)
    return {name: _view(data, start, entry) for name, entry in header.items()}, metadata


def _map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: expected a safetensors file, can't map it: {error}") from error


def _header(data: bytes | mmap.mmap, path: Path) -> tuple[dict[str, Any], int]:
    if len(data) < LENGTH_BYTES:
        raise BundleError(f"{path}: expected a safetensors file, got {len(data)} bytes")
    length = int.from_bytes(data[:LENGTH_BYTES], "little")
    start = LENGTH_BYTES + length
    if length > HEADER_LIMIT or start > len(data):
        raise BundleError(f"{path}: header of {length} bytes does not fit a file of {len(data)} bytes")
    try:
        header = strict_json.loads(data[LENGTH_BYTES:start])
    except ValueError as error:
        raise BundleError(f"{path}: header is no JSON: {error}") from error
    if not isinstance(header, dict):
        raise BundleError(f"{path}: header: expected an object, got {type(header).__name__}")
    return header, start


def _check_layout(header: Mapping[str, Any], length: int, path: Path) -> None:
    """Tensors must tile the data without holes or overlap, each with as many bytes as its shape and type need."""
    for name, entry in header.items():
        _check_entry(entry, f"{path}: tensor {name}")
    spans = sorted((*entry["data_offsets"], name) for name, entry in header.items())
    end = 0
    for begin, stop, name in spans:
        if begin != end:
            raise BundleError(f"{path}: tensor {name}: expected its data at offset {end}, got {begin}")
        end = stop
    if end != length:
        raise BundleError(f"{path}: expected {end} bytes of data, got {length}; the file is cut short or has a tail")


def _check_entry(entry: Any, where: str) -> None:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise BundleError(f"{where}: expected dtype, shape and data_offsets, got {shown(entry)}")
    if not isinstance(entry["dtype"], str) or entry["dtype"] not in DTYPES:
        raise BundleError(f"{where}: dtype {shown(entry['dtype'])}; this runtime reads {', '.join(DTYPES)}")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or len(shape) > MAX_DIMENSIONS:
        raise BundleError(f"{where}: malformed shape or data_offsets: {shown(entry)}")
    expected = math.prod(shape) * np.dtype(DTYPES[entry["dtype"]]).itemsize
    if offsets[1] - offsets[0] != expected:
        raise BundleError(f"{where}: {entry['dtype']}{shape} needs {expected} bytes, got {offsets[1] - offsets[0]}")


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(v) is int and 0 <= v <= MAX_SIZE for v in value)


def _view(data: bytes | mmap.mmap, start: int, entry: Mapping[str, Any]) -> Array:
    dtype, shape = np.dtype(DTYPES[entry["dtype"]]), entry["shape"]
    array = np.frombuffer(data, dtype.newbyteorder("<"), math.prod(shape), start + entry["data_offsets"][0])
    return array.reshape(shape)
