"""The byte tokenizer against transformers' PerceiverTokenizer, and masks filled in by a bundle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import PerceiverTokenizer

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.execution.session import Session
from perceiver_runtime.processing.fill_mask import fill_mask, hide
from perceiver_runtime.processing.text import SPECIAL_TOKENS, VOCABULARY, ByteTokenizer

ORACLE = PerceiverTokenizer()
OURS = ByteTokenizer()
TEXTS = st.lists(st.one_of(st.text(max_size=40), st.sampled_from((*SPECIAL_TOKENS, "[MASK", " .", " n't")))).map(
    "".join
)


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_ids_and_masks_equal_the_original(texts: list[str]) -> None:
    expected = ORACLE(texts, padding="longest", return_tensors="np")
    got = OURS.encode(texts)
    for name in ("input_ids", "attention_mask"):
        assert got[name].dtype == np.int64
        np.testing.assert_array_equal(got[name], expected[name])


@given(TEXTS, st.integers(2, 30))
def test_truncation_and_full_padding_equal_the_original(text: str, length: int) -> None:
    expected = ORACLE([text], padding="max_length", truncation=True, max_length=length, return_tensors="np")
    got = ByteTokenizer(length).encode(text, padding="max_length", truncation=True)
    for name in ("input_ids", "attention_mask"):
        np.testing.assert_array_equal(got[name], expected[name])


def test_the_released_maximum_is_the_originals() -> None:
    assert OURS.max_length == ORACLE.model_max_length
    assert OURS.encode("a", padding="max_length")["input_ids"].shape == (1, 2048)


@given(st.lists(st.integers(0, VOCABULARY - 1), max_size=30), st.booleans())
def test_decoding_equals_the_original(ids: list[int], skip: bool) -> None:
    assert OURS.decode(ids, skip_special_tokens=skip) == ORACLE.decode(ids, skip_special_tokens=skip)


@given(st.text(max_size=60))
def test_text_comes_back(text: str) -> None:
    plain = text.replace("[", "(")
    assert OURS.decode(OURS.encode(plain)["input_ids"][0], skip_special_tokens=True) == plain


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ByteTokenizer(8).encode("seven b"), r"expected at most 6 bytes .* got 7; shorten it"),
        (lambda: OURS.encode([]), "expected at least one text"),
        (lambda: OURS.encode([b"bytes"]), "expected str, got bytes"),  # type: ignore[list-item]
        (lambda: OURS.decode([262]), "expected 0 to 261, got 262"),
        (lambda: OURS.decode([-1, 5]), "expected 0 to 261, got -1 to 5"),
        (lambda: OURS.decode(np.zeros((1, 4), np.int64)), r"got int64\[1, 4\]; decode one row"),
        (lambda: OURS.decode(np.zeros(4)), r"got float64\[4\]"),  # type: ignore[arg-type]
        (lambda: hide("some words", "word?"), "expected it to contain 'word\\?'"),
    ],
)
def test_misfits_are_refused(call: object, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        call()


def test_a_tokenizer_without_room_is_refused() -> None:
    with pytest.raises(UsageError, match="expected max_length of 2"):
        ByteTokenizer(1)


def test_special_tokens_without_a_name_are_refused() -> None:
    with pytest.raises(UsageError, match="tokenizer: expected names of special tokens, got"):
        ByteTokenizer(special_tokens=("", *ByteTokenizer().special_tokens[1:]))


def test_one_mask_hides_one_byte() -> None:
    assert hide("naïve naïve", "ï") == "na[MASK][MASK]ve naïve"


def test_masks_are_filled_in(text_session: Session) -> None:
    result = fill_mask(text_session, hide("green trees", "ee"))
    assert (result.text, result.filled) == ("green trees", "ee")
    # exp(10) against exp(0) for each of the 261 other ids.
    np.testing.assert_allclose(result.probabilities, np.exp(10) / (np.exp(10) + 261), rtol=1e-6)


def test_a_text_without_mask_is_refused(text_session: Session) -> None:
    with pytest.raises(FeedError, match="at least one \\[MASK\\]"):
        fill_mask(text_session, "green trees")


def test_a_text_too_long_for_the_bundle_is_refused(text_session: Session) -> None:
    with pytest.raises(FeedError, match=r"expected at most (22|30) bytes"):
        fill_mask(text_session, "[MASK]" * 40)


def test_another_model_is_refused(flow_session: Session) -> None:
    with pytest.raises(UsageError, match="expected an input input_ids"):
        fill_mask(flow_session, "[MASK]")
