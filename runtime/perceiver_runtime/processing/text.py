"""Text as UTF-8 bytes, tokenized as for the released language models (Jaegle et al. 2021, section 4.1).

The vocabulary is six special tokens followed by the 256 bytes: 262 ids. Equal to the tokenizer of the released
checkpoints with one exception: a text that is too long is refused unless truncation is requested.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.tensors import is_whole

Ids = npt.NDArray[np.int64]
Padding = Literal["longest", "max_length"]

SPECIAL_TOKENS = ("[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]")
PAD, BOS, EOS, MASK, CLS, SEP = range(6)
BYTE_OFFSET = len(SPECIAL_TOKENS)
VOCABULARY = BYTE_OFFSET + 256
MAX_LENGTH = 1 << 24

_SPLIT = re.compile("(" + "|".join(map(re.escape, SPECIAL_TOKENS)) + ")")


@dataclass(frozen=True)
class ByteTokenizer:
    """Converts texts to ids and back. `max_length` is the largest number of ids, [CLS] and [SEP] included."""

    max_length: int = 2048

    def __post_init__(self) -> None:
        if not is_whole(self.max_length) or not 2 <= self.max_length <= MAX_LENGTH:
            raise UsageError(
                f"tokenizer: expected max_length of 2 ([CLS] and [SEP]) to {MAX_LENGTH}, got {self.max_length!r:.40}"
            )

    def ids(self, text: str, *, truncation: bool = False) -> list[int]:
        """`[CLS] text [SEP]` as ids. Names of special tokens in the text become these tokens.

        Raises FeedError for a text of more than `max_length` ids, unless `truncation` cuts its end off.
        """
        if not isinstance(text, str):
            raise FeedError(f"text: expected str, got {type(text).__name__}; decode bytes with .decode()")
        content = [token for piece in _SPLIT.split(text) for token in _piece_ids(piece)]
        room = self.max_length - 2
        if len(content) > room and not truncation:
            raise FeedError(
                f"text: expected at most {room} bytes and special tokens, got {len(content)}; "
                "shorten it or pass truncation=True"
            )
        return [CLS, *content[:room], SEP]

    def encode(
        self, texts: str | Sequence[str], *, padding: Padding = "longest", truncation: bool = False
    ) -> dict[str, Ids]:
        """Tokenize texts.

        Args:
            texts: One text, or a sequence of texts.
            padding: Pad to the longest text or to `max_length`, on the right, with [PAD] and a mask of 0.
            truncation: Cut the end of texts that are too long, instead of refusing them.

        Returns:
            `input_ids` and `attention_mask` (B, L), int64; a single text is a batch of one.

        Raises:
            FeedError: A text is too long or no text.
            UsageError: The padding is unknown.
        """
        if not isinstance(padding, str) or padding not in get_args(Padding):
            raise UsageError(f"padding {padding!r:.40}; expected {' or '.join(get_args(Padding))}")
        if not isinstance(texts, (str, Sequence)):
            raise FeedError(f"texts: expected a text or a sequence of texts, got {type(texts).__name__}")
        rows = [self.ids(text, truncation=truncation) for text in ([texts] if isinstance(texts, str) else texts)]
        if not rows:
            raise FeedError("texts: expected at least one text, got none")
        length = self.max_length if padding == "max_length" else max(map(len, rows))
        input_ids: Ids = np.full((len(rows), length), PAD, np.int64)
        for target, row in zip(input_ids, rows, strict=True):
            target[: len(row)] = row
        lengths = np.array([len(row) for row in rows])
        return {"input_ids": input_ids, "attention_mask": (np.arange(length) < lengths[:, None]).astype(np.int64)}

    def decode(self, ids: Sequence[int] | Ids, *, skip_special_tokens: bool = False) -> str:
        """Ids (L,) to text. Bytes that are no UTF-8 become U+FFFD. Raises FeedError for ids out of the vocabulary."""
        try:
            row = np.asarray(ids)
        except ValueError as error:
            raise FeedError(f"ids: expected int64[length]: {error}; decode one row at a time") from error
        if row.ndim != 1 or (row.size and row.dtype.kind not in "iu"):
            raise FeedError(f"ids: expected int64[length], got {row.dtype}{list(row.shape)}; decode one row at a time")
        if row.size and not (row.min() >= 0 and row.max() < VOCABULARY):
            raise FeedError(f"ids: expected 0 to {VOCABULARY - 1}, got {row.min()} to {row.max()}")
        kept = row[row >= BYTE_OFFSET] if skip_special_tokens else row
        return b"".join(_TOKEN_BYTES[token] for token in kept).decode("utf-8", errors="replace")


def _piece_ids(piece: str) -> list[int]:
    if piece in SPECIAL_TOKENS:
        return [SPECIAL_TOKENS.index(piece)]
    return [byte + BYTE_OFFSET for byte in utf8(piece)]


def utf8(text: str) -> bytes:
    """The text's bytes. Raises FeedError for half a surrogate pair, which UTF-8 lacks."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FeedError(
            f"text: expected Unicode, got half a surrogate pair at {error.start}; decode it with errors='replace'"
        ) from error


_TOKEN_BYTES = (*(name.encode() for name in SPECIAL_TOKENS), *(bytes([byte]) for byte in range(256)))
