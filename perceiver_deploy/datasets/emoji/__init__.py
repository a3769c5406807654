"""Emoji: pictures of 32x32 pixels with their names, kinds, and the version of Unicode Emoji that introduced them.

Pictures are Noto Color Emoji's (Google, SIL Open Font Licence 1.1), all else is from emoji-test.txt 15.0 (Unicode
licence). A version is a real number that tells when: 0.6 is 2010, 1.0 2015, 5.0 2017, 15.0 2022.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

SIZE = 32
LENGTH = 40
"""Bytes of the longest name that is kept."""

PADDING, START, STOP, OFFSET = 0, 1, 2, 3
"""Ids below a byte's: its own id is its value and OFFSET."""

VOCABULARY = 256 + OFFSET


def encode(names: Sequence[str], length: int = LENGTH) -> npt.NDArray[np.int64]:
    """The `input_ids` (N, length) of names: UTF-8 bytes, padded with 0 on the right."""
    ids = np.zeros((len(names), length), np.int64)
    for row, name in zip(ids, names, strict=True):
        data = name.encode()[:length]
        row[: len(data)] = np.frombuffer(data, np.uint8).astype(np.int64) + OFFSET
    return ids


def decode(ids: Iterable[int]) -> str:
    """The name that generated ids spell, up to the first STOP; bytes that are no UTF-8 become U+FFFD."""
    spelt = bytearray()
    for token in ids:
        if token == STOP:
            break
        spelt += bytes((int(token) - OFFSET,)) if token >= OFFSET else b""
    return spelt.decode(errors="replace")


def scale(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Bytes (N, 32, 32, 3) to the `pixel_values` (N, 3, 32, 32) in [0, 1] that a model takes."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255.0))
