"""`tokenizer_config.json` and `special_tokens_map.json`: the settings of transformers' PerceiverTokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from perceiver_deploy.checkpoints.fields import Field, choice, number, optional, read, shown
from perceiver_deploy.checkpoints.files.json_file import read_json
from perceiver_runtime.processing.text import VOCABULARY
from perceiver_runtime.settings import Processing

TOKENIZER, SPECIAL_TOKENS_MAP = "tokenizer_config.json", "special_tokens_map.json"
CLASSES = ("PerceiverTokenizer", None)
ROLES = ("pad", "bos", "eos", "mask", "cls", "sep")
"""Of the special tokens, by id."""
FIELDS: Mapping[str, Field] = {
    "model_max_length": Field(optional(number(2, 1e31)), None),
    "padding_side": Field(optional(choice("right", "left")), None),
    "truncation_side": Field(optional(choice("right", "left")), None),
}


def read_tokenizer(directory: Path, released: Processing, vocabulary: int) -> Processing:
    """The processing of a text model, whose tokenizer is the released one with other names or lengths.

    Args:
        directory: The checkpoint; without a file the released settings count, as in transformers.
        released: The processing of a released model of the same kind.
        vocabulary: Number of ids of the model.

    Returns:
        The processing, or a refusal.

    Raises:
        CheckpointError: A value that no tokenizer takes.
    """
    path, others = directory / TOKENIZER, directory / SPECIAL_TOKENS_MAP
    given = {**(read_json(others) if others.is_file() else {}), **(read_json(path) if path.is_file() else {})}
    values = read(given, FIELDS, str(path))
    why = _refusal(given, values, vocabulary)
    if why:
        return Processing(refusal=f"the checkpoint's tokenizer: {why}", origin=TOKENIZER)
    text = released.text
    assert text is not None  # a text model
    limit = values["model_max_length"]
    tokens = tuple(_content(given.get(f"{role}_token"), name) for role, name in _roles(text.special_tokens))
    longest = text.max_length if limit is None else int(min(text.max_length, limit))
    return replace(
        released,
        text=replace(text, special_tokens=tokens, max_length=longest),
        origin=TOKENIZER if path.is_file() else released.origin,
    )


def _refusal(given: Mapping[str, Any], values: Mapping[str, Any], vocabulary: int) -> str:
    if (name := given.get("tokenizer_class")) not in CLASSES:
        return f"{shown(name)} is not known; expected {CLASSES[0]}"
    if vocabulary != VOCABULARY:
        return f"expected a vocabulary of {VOCABULARY} ids, bytes and special tokens, the model has {vocabulary}"
    for key in ("additional_special_tokens", "extra_special_tokens"):
        if given.get(key):
            return f"{key}: {shown(given[key])} are not supported"
    if given.get("auto_map"):
        return "its code (auto_map) is never run"
    for key in ("padding_side", "truncation_side"):
        if values[key] == "left":
            return f"{key}: expected right, got left"
    tokens = [given.get(f"{role}_token") for role in ROLES]
    added = given.get("added_tokens_decoder") or {}
    if not isinstance(added, dict) or not set(added) <= {str(i) for i in range(len(ROLES))}:
        return f"added_tokens_decoder: expected the {len(ROLES)} special tokens, got {shown(added)}"
    for token in (*tokens, *added.values()):
        if _content(token, "") is None or any(_flag(token, flag) for flag in ("lstrip", "rstrip", "single_word")):
            return f"special token {shown(token)}: expected a name, with the blanks around it left alone"
    return ""


def _roles(names: tuple[str, ...]) -> list[tuple[str, str]]:
    return list(zip(ROLES, names, strict=True))


def _content(token: Any, default: str) -> Any:
    """The name of a token as transformers writes it; None if it has none."""
    name = token.get("content") if isinstance(token, dict) else default if token is None else token
    return name if isinstance(name, str) else None


def _flag(token: Any, name: str) -> bool:
    return isinstance(token, dict) and bool(token.get(name))
