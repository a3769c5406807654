"""Images, sounds, texts, and what a tokenizer is given."""

from __future__ import annotations

import io
import random
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.targets.reading import OfBytes, Once

from perceiver_runtime.processing.files import read_frames, read_sound, read_text
from perceiver_runtime.processing.text import ByteTokenizer

TEXT = "".join(map(chr, (9, 65, 228, 0x4E2D, 0x1F600, 0, 0xD800, 0xDFFF, 0x202E)))
FORMS = ("png", "jpeg", "gif", "bmp", "tiff", "webp")
FIELDS = ("max_length", "offset", "padding", "prefix", "suffix", "special_tokens")
VALUES: tuple[Any, ...] = (
    *(None, -1, 0, 1, 5, 6, 300, 2**40, 1.5, True, "", "x"),
    *((), ("a",), (1,), (4, "x"), (2**80,)),
)


def tokenizer(folder: Path) -> Once:
    def once(chance: random.Random) -> None:
        text = "".join(chance.choice((*TEXT, "[MASK]", "[", "abc")) for _ in range(chance.randrange(40)))
        given = {chance.choice(FIELDS): chance.choice(VALUES)} if chance.random() < 0.3 else {}
        made = ByteTokenizer(**given) if not given or _fits(given) else ByteTokenizer()
        ids = made.encode([text, text[::-1]], truncation=chance.random() < 0.5)["input_ids"]
        ids[0, 0] = chance.choice((0, -1, 2**40, 261, 262))
        made.decode(ids[0])

    return once


def _fits(given: Mapping[str, Any]) -> bool:
    """Whether the fields have the types that a manifest's decoder lets through."""
    (name, value), *_ = given.items()
    if name in ("prefix", "suffix"):
        return isinstance(value, tuple) and all(type(v) is int for v in value)
    if name == "special_tokens":
        return isinstance(value, tuple) and all(isinstance(v, str) for v in value)
    return type(value) is int


def images(folder: Path) -> Once:
    from PIL import Image

    pixels = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    whole = []
    for form in FORMS:
        saved = io.BytesIO()
        pixels.save(saved, form)
        whole.append(saved.getvalue())

    def read(data: bytes) -> None:
        (folder / "x").write_bytes(data)
        for _ in read_frames(folder / "x"):
            pass

    return OfBytes(tuple(whole), read)


def sounds(folder: Path) -> Once:
    saved = io.BytesIO()
    with wave.open(saved, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(48000)
        file.writeframes(bytes(64))

    def read(data: bytes) -> None:
        (folder / "x.wav").write_bytes(data)
        read_sound(folder / "x.wav")

    return OfBytes((saved.getvalue(),), read)


def texts(folder: Path) -> Once:
    def read(data: bytes) -> None:
        (folder / "x.txt").write_bytes(data)
        read_text(folder / "x.txt")

    return OfBytes(("ä\U0001f600abc\n".encode(),), read)
