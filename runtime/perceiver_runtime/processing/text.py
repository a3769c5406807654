"""Text as UTF-8 bytes, by default tokenized as for the released language models (Jaegle et al. 2021, section 4.1).

Their vocabulary is six special tokens followed by the 256 bytes: 262 ids. Equal to the tokenizer of the released
checkpoints with one exception: a text that is too long is refused unless truncation is requested.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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

MAX_OFFSET = 1 << 16


@dataclass(frozen=True)
class ByteTokenizer:
    """Converts texts to ids and back. The defaults are those of the released language models.

    Attributes:
        max_length: Largest number of ids, prefix and suffix included.
        special_tokens: Special tokens by id; where they are written in a text, they become these ids.
        offset: The id of a byte is its value and this.
        prefix: Ids before the text.
        suffix: Ids after the text.
        padding: Id that pads shorter texts.

    Raises:
        UsageError: No text fits, or ids are out of range.
    """

    max_length: int = 2048
    special_tokens: tuple[str, ...] = SPECIAL_TOKENS
    offset: int = BYTE_OFFSET
    prefix: tuple[int, ...] = (CLS,)
    suffix: tuple[int, ...] = (SEP,)
    padding: int = PAD

    def __post_init__(self) -> None:
        least = max(len(self.prefix) + len(self.suffix), 1)
        if not is_whole(self.max_length) or not least <= self.max_length <= MAX_LENGTH:
            ends = " ([CLS] and [SEP])" if (self.prefix, self.suffix) == ((CLS,), (SEP,)) else ""
            raise UsageError(
                f"tokenizer: expected max_length of {least}{ends} to {MAX_LENGTH}, got {self.max_length!r:.40}"
            )
        if not (is_whole(self.offset) and len(self.special_tokens) <= self.offset <= MAX_OFFSET):
            raise UsageError(
                f"tokenizer: expected an offset of {len(self.special_tokens)} to {MAX_OFFSET}, got {self.offset!r:.40}"
            )
        ids = (*self.prefix, *self.suffix, self.padding)
        if not all(is_whole(token) and 0 <= token < self.vocabulary for token in ids):
            raise UsageError(f"tokenizer: expected ids of 0 to {self.vocabulary - 1}, got {ids}")
        if not all(isinstance(token, str) and token for token in self.special_tokens):
            raise UsageError(f"tokenizer: expected names of special tokens, got {self.special_tokens!r:.80}")

    @property
    def vocabulary(self) -> int:
        """Number of ids."""
        return self.offset + 256

    def limited(self, length: int) -> ByteTokenizer:
        """The tokenizer for at most `length` ids. Raises UsageError if no text fits."""
        return replace(self, max_length=min(self.max_length, length))

    def ids(self, text: str, *, truncation: bool = False) -> list[int]:
        """Prefix, text and suffix as ids ([CLS] text [SEP]). Names of special tokens in the text become these tokens.

        Raises FeedError for a text of more than `max_length` ids, unless `truncation` cuts its end off.
        """
        if not isinstance(text, str):
            raise FeedError(f"text: expected str, got {type(text).__name__}; decode bytes with .decode()")
        content = [token for piece in self._pieces(text) for token in self._piece_ids(piece)]
        room = self.max_length - len(self.prefix) - len(self.suffix)
        if len(content) > room and not truncation:
            raise FeedError(
                f"text: expected at most {room} bytes and special tokens, got {len(content)}; "
                "shorten it or pass truncation=True"
            )
        return [*self.prefix, *content[:room], *self.suffix]

    def encode(
        self, texts: str | Sequence[str], *, padding: Padding = "longest", truncation: bool = False
    ) -> dict[str, Ids]:
        """Tokenize texts.

        Args:
            texts: One text, or a sequence of texts.
            padding: Pad to the longest text or to `max_length`, on the right, with `self.padding` and a mask of 0.
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
        length = self.max_length if padding == "max_length" else max(1, *map(len, rows))
        input_ids: Ids = np.full((len(rows), length), self.padding, np.int64)
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
        if row.size and not (row.min() >= 0 and row.max() < self.vocabulary):
            raise FeedError(f"ids: expected 0 to {self.vocabulary - 1}, got {row.min()} to {row.max()}")
        kept = row[row >= self.offset] if skip_special_tokens else row
        return b"".join(self._token_bytes[token] for token in kept).decode("utf-8", errors="replace")

    @cached_property
    def _token_bytes(self) -> tuple[bytes, ...]:
        """Of each id; ids below the offset without a name have none."""
        names = (*self.special_tokens, *[""] * (self.offset - len(self.special_tokens)))
        return (*(name.encode() for name in names), *(bytes([byte]) for byte in range(256)))

    def _pieces(self, text: str) -> list[str]:
        """The text split at special tokens, of which the longest goes first."""
        names = sorted(self.special_tokens, key=len, reverse=True)
        return re.split(f"({'|'.join(map(re.escape, names))})", text) if names else [text]

    def _piece_ids(self, piece: str) -> list[int]:
        if piece in self.special_tokens:
            return [self.special_tokens.index(piece)]
        return [byte + self.offset for byte in utf8(piece)]


def utf8(text: str) -> bytes:
    """The text's bytes. Raises FeedError for half a surrogate pair, which UTF-8 lacks."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise FeedError(
            f"text: expected Unicode, got half a surrogate pair at {error.start}; decode it with errors='replace'"
        ) from error
