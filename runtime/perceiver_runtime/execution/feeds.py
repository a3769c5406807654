"""Check the arrays given to a session: names, types, ranks, sizes and values. Nothing is cast, padded or reshaped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from perceiver_runtime.errors import CheckError, FeedError
from perceiver_runtime.execution.subpipeline import Subpipeline, check_mapping
from perceiver_runtime.suggest import did_you_mean
from perceiver_runtime.tensors import Array, Profile, Range, TensorSpec, ValueRange


def check_feeds(subpipeline: Subpipeline, feeds: Mapping[str, Any]) -> dict[str, int]:
    """Sizes of all symbolic dimensions, in the subpipeline's order; `check_sizes` compares them with profiles.

    Raises FeedError that names what was expected and what was given. This is on the path of every run: it calls no
    NumPy function and loops over the inputs only.
    """
    if type(feeds) is not dict:
        check_mapping(subpipeline.title, feeds)
    sizes: dict[str, int] = {}
    known = 0
    for name, (spec, dtype) in subpipeline.specs.items():
        array = feeds.get(name)
        if array is None:
            continue
        known += 1
        if not isinstance(array, np.ndarray) or array.dtype != dtype or array.ndim != len(spec.shape):
            raise FeedError(_misfit(spec, array))
        for symbol, size in zip(spec.shape, array.shape):  # noqa: B905 - ranks are equal
            if (symbol if isinstance(symbol, int) else sizes.setdefault(symbol, size)) != size:
                raise FeedError(_disagreement(spec, array, symbol, sizes))
    if known != len(feeds):
        raise FeedError(_unknown(feeds, subpipeline))
    return sizes


def check_values(subpipeline: Subpipeline, feeds: Mapping[str, Array], finite: bool) -> None:
    """Compare checked feeds with the ranges of their integers and, if `finite`, of their floating-point numbers.

    Raises FeedError that names the first value out of range and its index.
    """
    for name, allowed in subpipeline.ranges.items():
        if (array := feeds.get(name)) is not None and not allowed.holds(array):
            raise FeedError(_outside(name, array, allowed))
    for name, allowed in subpipeline.finite_ranges.items() if finite else ():
        if (array := feeds.get(name)) is not None and not allowed.holds(array):
            raise FeedError(_not_finite(name, array, allowed))


def check_results(title: str, results: Mapping[str, Array]) -> None:
    """Raise CheckError that names the first value that is NaN or infinite, and its index."""
    for name, array in results.items():
        if array.dtype.kind == "f" and not (finite := np.isfinite(array)).all():
            index = np.unravel_index(int(np.argmin(finite)), array.shape)
            raise CheckError(
                f"{title}: expected finite results, got {array[index]} in {name} at {list(map(int, index))}: a number "
                "inside a component left the range of its type; see `perceiver-export bisect`"
            )


def check_sizes(subpipeline: Subpipeline, feeds: Mapping[str, Any], sizes: Mapping[str, int]) -> frozenset[str]:
    """Inputs that are omitted and filled with their default.

    Raises FeedError for a missing input without a default, or sizes that no profile allows.
    """
    missing = [spec for spec in subpipeline.inputs if spec.name not in feeds]
    if required := [str(spec) for spec in missing if spec.name not in subpipeline.defaults]:
        raise FeedError(f"{subpipeline.title}: input {' and '.join(required)} is missing")
    for spec in missing:
        _check_default(subpipeline, spec, sizes)
    for symbol, size in sizes.items():
        _check_range(symbol, size, subpipeline.profiles)
    if subpipeline.profiles and not any(_within(sizes, profile) for profile in subpipeline.profiles):
        raise FeedError(
            f"{', '.join(f'{s} = {n}' for s, n in sizes.items())}: no single profile of "
            f"{', '.join(p.name for p in subpipeline.profiles)} takes these sizes together"
        )
    return frozenset(spec.name for spec in missing)


def _misfit(spec: TensorSpec, array: Any) -> str:
    if not isinstance(array, np.ndarray):
        other = "; arrays of other libraries and on the device: session.caller().run" if _exports(array) else ""
        return f"{spec.name}: expected a NumPy array {spec}, got {type(array).__name__}{other}"
    if array.dtype != spec.dtype:
        return f"{spec.name}: expected {spec}, got dtype {array.dtype}; cast it: .astype(np.{spec.dtype})"
    return f"{spec.name}: expected rank {spec.rank} ({spec}), got rank {array.ndim}: {list(array.shape)}"


def _exports(array: Any) -> bool:
    return hasattr(array, "__dlpack__") or hasattr(array, "__cuda_array_interface__")


def _disagreement(spec: TensorSpec, array: Any, symbol: int | str, sizes: Mapping[str, int]) -> str:
    if isinstance(symbol, int):
        return f"{spec.name}: expected {spec}, got shape {list(array.shape)}: {symbol} is fixed in this bundle"
    return f"{spec.name}: expected {spec} with {symbol} = {sizes[symbol]} as elsewhere, got shape {list(array.shape)}"


def _outside(name: str, array: Array, allowed: ValueRange) -> str:
    return f"{name}: expected {allowed}, got {_first(array, allowed)}; {_id_remedy(allowed)}"


def _id_remedy(allowed: ValueRange) -> str:
    if allowed == ValueRange(0, 1):
        return "give 1 for what counts and 0 for what is left out"
    return "give ids that the model knows, and mask out padding rather than marking it by another id"


def _not_finite(name: str, array: Array, allowed: ValueRange) -> str:
    limit = f"finite numbers, of magnitude at most {float(allowed.max):.6g}"
    return (
        f"{name}: expected {limit}, got {_first(array, allowed)}; correct what made it, "
        "or open the session with check_finite=False (perceiver-run run --no-check-finite)"
    )


def _first(array: Array, allowed: ValueRange) -> str:
    """The first value outside, and its index."""
    inside = (array >= allowed.min) & (array <= allowed.max)
    index = np.unravel_index(int(np.argmin(inside)), array.shape)
    return f"{array[index]} at [{', '.join(map(str, index))}]"


def _unknown(feeds: Mapping[str, Any], subpipeline: Subpipeline) -> str:
    for name, array in feeds.items():
        if name in subpipeline.specs and array is None:
            return _misfit(subpipeline.specs[name][0], array)
    name = next(name for name in feeds if name not in subpipeline.specs)
    hint = did_you_mean(str(name), subpipeline.specs)
    return f"{subpipeline.title}: no input {name!r}; expected {', '.join(subpipeline.specs)}{hint}"


def _check_default(subpipeline: Subpipeline, spec: TensorSpec, sizes: Mapping[str, int]) -> None:
    if unknown := [symbol for symbol in spec.symbols if symbol not in sizes]:
        raise FeedError(
            f"{subpipeline.title}: input {spec.name} has a default, "
            f"but no given input has its size {', '.join(unknown)}"
        )


def _within(sizes: Mapping[str, int], profile: Profile) -> bool:
    return all(size in profile.dimensions[s] for s, size in sizes.items() if s in profile.dimensions)


def _check_range(symbol: str, size: int, profiles: tuple[Profile, ...]) -> None:
    ranges = [profile.dimensions[symbol] for profile in profiles if symbol in profile.dimensions]
    if size < 1 or (ranges and not any(size in allowed for allowed in ranges)):
        allowed = " or ".join(f"{r.min} to {r.max}" for r in ranges) or "at least 1"
        raise FeedError(f"{symbol} = {size}; this bundle takes {allowed}{_remedy(symbol, size, ranges)}")


def _remedy(symbol: str, size: int, ranges: list[Range]) -> str:
    if size < 1 or not ranges:
        return ""
    low, high = min(r.min for r in ranges), max(r.max for r in ranges)
    wanted = Range(min(low, size), ranges[0].opt, max(high, size))
    return f"; if the model can take it, export again with --range {symbol}={wanted}"
