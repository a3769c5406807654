"""Language identification: interface texts of Django in 24 languages, as UTF-8 bytes.

Texts come from the message catalogues of Django 5.2 (BSD 3-clause). Whatever is said in one language is said in all:
data are split by message, so that no held-out text is a translation, or nearly the wording, of a training text.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from perceiver_runtime.settings import OutputSettings, Processing, TextSettings

LANGUAGES = (
    "ar", "bg", "ca", "cs", "da", "de", "el", "en", "es", "fi", "fr", "he",
    "hu", "id", "it", "ja", "ko", "nl", "pl", "pt", "ru", "sv", "tr", "uk",
)  # fmt: skip
LENGTH = 96
"""Bytes of a text that are read; the rest is cut off."""

OFFSET = 1
"""A byte's id is its value and this; id 0 is padding."""

VOCABULARY = 256 + OFFSET
PROCESSING = Processing(
    text=TextSettings(offset=OFFSET, max_length=LENGTH, truncation=True),
    outputs={"logits": OutputSettings("classes", LANGUAGES)},
    origin="its training data",
)


def encode(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """The `input_ids` (N, longest) of texts: UTF-8 bytes, cut at LENGTH, padded with 0 on the right."""
    encoded = [text.encode()[:LENGTH] for text in texts]
    ids = np.zeros((len(encoded), max(map(len, encoded))), np.int64)
    for row, data in zip(ids, encoded, strict=True):
        row[: len(data)] = np.frombuffer(data, np.uint8).astype(np.int64) + OFFSET
    return ids
