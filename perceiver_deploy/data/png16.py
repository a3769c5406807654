"""16-bit RGB PNG files (PNG specification, third edition), which Pillow reads in 8 bits only."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import DatasetError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXEL = 6
"""Bytes of a pixel."""


def read_png16(path: Path) -> npt.NDArray[np.uint16]:
    """Levels (H, W, 3). Raises DatasetError for a damaged file, or another kind of PNG."""
    content = path.read_bytes()
    try:
        if content[:8] != SIGNATURE:
            raise ValueError("no PNG")
        chunks = list(_chunks(content))
        width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
        if (depth, colour, interlaced) != (16, 2, 0):
            raise ValueError(f"{depth} bits, colour type {colour}")
        lines = zlib.decompress(b"".join(data for kind, data in chunks if kind == b"IDAT"))
        rows = np.frombuffer(lines, np.uint8).reshape(height, 1 + width * PIXEL)
    except (ValueError, IndexError, struct.error, zlib.error) as error:
        raise DatasetError(f"{path}: expected a PNG of 16 bits and three channels, not interlaced: {error}") from error
    plain = np.zeros((height + 1, width * PIXEL), np.uint8)
    for i, row in enumerate(rows):
        plain[i + 1] = _unfiltered(int(row[0]), row[1:].astype(np.int64), plain[i].astype(np.int64), path)
    return plain[1:].reshape(height, width, 3, 2).view(">u2")[..., 0].astype(np.uint16)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    start = len(SIGNATURE)
    while start < len(content):
        length, kind = struct.unpack(">I4s", content[start : start + 8])
        yield kind, content[start + 8 : start + 8 + length]
        start += length + 12


def _unfiltered(kind: int, line: npt.NDArray[np.int64], above: npt.NDArray[np.int64], path: Path) -> object:
    """Section 9.2: what is stored is the difference to a neighbour."""
    if kind == 0:
        return line & 255
    if kind == 2:
        return (line + above) & 255
    if kind not in (1, 3, 4):
        raise DatasetError(f"{path}: expected a filter of 0 to 4, got {kind}")
    made = [0] * PIXEL
    corner = [0] * PIXEL + above.tolist()
    for i, value in enumerate(line.tolist()):
        left, up, diagonal = made[i], corner[i + PIXEL], corner[i]
        predicted = {1: left, 3: (left + up) // 2, 4: _paeth(left, up, diagonal)}[kind]
        made.append((value + predicted) & 255)
    return made[PIXEL:]


def _paeth(left: int, up: int, diagonal: int) -> int:
    estimate = left + up - diagonal
    return min((left, up, diagonal), key=lambda each: abs(estimate - each))
