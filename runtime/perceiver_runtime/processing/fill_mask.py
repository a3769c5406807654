"""Masked language modelling over bytes: mask a part of a text and let a session fill it in."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.execution.session import Session
from perceiver_runtime.processing.labels import Floats, softmax
from perceiver_runtime.processing.processor import processor_of
from perceiver_runtime.processing.text import MASK, SPECIAL_TOKENS, ByteTokenizer, Ids, Padding, utf8


@dataclass(frozen=True)
class FilledText:
    """A text with its masks filled in: the predicted ids (M,), and their probabilities (M,)."""

    text: str
    filled: str
    ids: Ids
    probabilities: Floats


def hide(text: str, part: str) -> str:
    """The text with the first occurrence of `part` replaced by one [MASK] for each of its bytes. Raises FeedError."""
    if not part or part not in text:
        raise FeedError(
            f"text: expected it to contain {part!r}, got {text!r}; name a part of the text as it is written"
        )
    return text.replace(part, SPECIAL_TOKENS[MASK] * len(utf8(part)), 1)


def fill_mask(session: Session, text: str, tokenizer: ByteTokenizer | None = None) -> FilledText:
    """Replace each [MASK] of a text by the most likely token.

    Args:
        session: A session of a masked language model.
        text: Text with at least one [MASK].
        tokenizer: Tokenizer; None takes the bundle's, or the released one for a bundle that states none.

    Returns:
        The filled text. A bundle of one fixed text length gets the text padded to it.

    Raises:
        FeedError: The text has no mask, or is too long.
        UsageError: The bundle is no language model.
    """
    tokenizer, padding = _fitted(session, tokenizer or _own(session))
    feeds = tokenizer.encode(text, padding=padding)
    logits = session.run(feeds, ["logits"])["logits"]
    return fill(text, feeds["input_ids"][0], logits[0], tokenizer)


def fill(text: str, input_ids: Ids, logits: Floats, tokenizer: ByteTokenizer, mask: int = MASK) -> FilledText:
    """Put the likeliest tokens by logits (L, vocabulary) in the place of the masks among ids (L,)."""
    masked = np.flatnonzero(input_ids == mask)
    if not masked.size:
        raise FeedError(
            f"text: expected at least one {tokenizer.special_tokens[mask]}, got none in {text!r}; see `hide`"
        )
    probabilities = softmax(logits[masked])
    chosen: Ids = probabilities.argmax(axis=-1)
    ids = input_ids.copy()
    ids[masked] = chosen
    return FilledText(
        text=tokenizer.decode(ids, skip_special_tokens=True),
        filled=tokenizer.decode(chosen),
        ids=chosen,
        probabilities=probabilities[np.arange(len(masked)), chosen],
    )


def _own(session: Session) -> ByteTokenizer:
    if session.manifest.processing is None:
        return ByteTokenizer()
    return processor_of(session.manifest).tokenizer()


def _fitted(session: Session, tokenizer: ByteTokenizer) -> tuple[ByteTokenizer, Padding]:
    """The tokenizer for the text length of a bundle, and whether that length is fixed."""
    spec = next((spec for spec in session.inputs if spec.name == "input_ids"), None)
    if spec is None:
        got = ", ".join(map(str, session.inputs))
        raise UsageError(f"bundle: expected an input input_ids: int64[batch, length], got {got}")
    length = spec.shape[1]
    if isinstance(length, int):
        return replace(tokenizer, max_length=length), "max_length"
    longest = max(profile.dimensions[length].max for profile in session.manifest.profiles)
    return replace(tokenizer, max_length=min(tokenizer.max_length, longest)), "longest"
