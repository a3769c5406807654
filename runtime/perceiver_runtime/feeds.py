"""Check the arrays given to a session: names, types, ranks, sizes. Nothing is cast, padded or reshaped."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver_runtime.errors import FeedError
from perceiver_runtime.program import Program
from perceiver_runtime.tensors import Profile, TensorSpec


def check_feeds(program: Program, feeds: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of all symbolic dimensions. Raises FeedError naming what was expected and what came."""
    sizes: dict[str, int] = {}
    for name, array in feeds.items():
        spec = program.specs.get(name)
        if spec is None:
            raise FeedError(_unknown(name, program))
        _check_array(spec, array)
        for symbol, size in zip(spec.shape, array.shape, strict=True):
            if (expected := symbol if isinstance(symbol, int) else sizes.setdefault(symbol, size)) != size:
                raise FeedError(_disagreement(spec, array, symbol, expected))
    for spec in program.inputs:
        if spec.name not in feeds:
            _check_default(program, spec, sizes)
    if not any(_within(sizes, profile) for profile in program.profiles):
        _check_sizes(sizes, program.profiles)
    return sizes


def _check_array(spec: TensorSpec, array: Any) -> None:
    if not isinstance(array, np.ndarray):
        raise FeedError(f"{spec.name}: expected a NumPy array {spec}, got {type(array).__name__}")
    if array.dtype.name != spec.dtype:
        raise FeedError(f"{spec.name}: expected {spec}, got dtype {array.dtype}; cast it: .astype(np.{spec.dtype})")
    if array.ndim != spec.rank:
        raise FeedError(f"{spec.name}: expected rank {spec.rank} ({spec}), got rank {array.ndim}: {list(array.shape)}")


def _disagreement(spec: TensorSpec, array: Any, symbol: int | str, expected: int) -> str:
    if isinstance(symbol, int):
        return f"{spec.name}: expected {spec}, got shape {list(array.shape)}: {expected} is fixed in this bundle"
    return f"{spec.name}: expected {spec} with {symbol} = {expected} as in the other inputs, got {list(array.shape)}"


def _unknown(name: str, program: Program) -> str:
    close = difflib.get_close_matches(name, program.specs, 1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"{program.title}: no input {name!r}; expected {', '.join(program.specs)}{hint}"


def _check_default(program: Program, spec: TensorSpec, sizes: Mapping[str, int]) -> None:
    if spec.name not in program.defaults:
        raise FeedError(f"{program.title}: input {spec} is missing")
    if unknown := [symbol for symbol in spec.symbols if symbol not in sizes]:
        raise FeedError(
            f"{program.title}: input {spec.name} has a default, but no given input has its size {', '.join(unknown)}"
        )


def _within(sizes: Mapping[str, int], profile: Profile) -> bool:
    return all(size in profile.dimensions[s] for s, size in sizes.items() if s in profile.dimensions)


def _check_sizes(sizes: Mapping[str, int], profiles: tuple[Profile, ...]) -> None:
    """No profile takes these sizes: say which size is outside of which range."""
    for symbol, size in sizes.items():
        ranges = [profile.dimensions[symbol] for profile in profiles if symbol in profile.dimensions]
        if size < 1 or (ranges and not any(size in allowed for allowed in ranges)):
            allowed = " or ".join(f"{r.min} to {r.max}" for r in ranges) or "at least 1"
            raise FeedError(f"{symbol} = {size}; this bundle takes {allowed}")
    if profiles:
        raise FeedError(
            f"{', '.join(f'{s} = {n}' for s, n in sizes.items())}: no single profile of "
            f"{', '.join(p.name for p in profiles)} takes these sizes together"
        )
