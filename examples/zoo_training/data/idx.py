"""Reader of IDX, the format of MNIST and its kin: a big-endian header, then unsigned bytes."""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import DatasetError

UNSIGNED_BYTE = 0x08


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Array of unsigned bytes in a gzipped IDX file. Raises DatasetError for anything else."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise DatasetError(f"{path}: expected a gzipped IDX file; {error}") from error
    if len(raw) < 4 or raw[:3] != bytes((0, 0, UNSIGNED_BYTE)):
        raise DatasetError(f"{path}: expected an IDX header of unsigned bytes (00 00 08), got {raw[:3].hex(' ')}")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise DatasetError(f"{path}: expected a header of {start} bytes, got {len(raw)}")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    expected = start + int(np.prod(shape, dtype=np.int64))
    if len(raw) != expected:
        raise DatasetError(f"{path}: its header announces {expected} bytes, got {len(raw)}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
