"""Ranges of dynamic dimensions in the syntax of options: `batch=1:4:16` is NAME=MIN:OPT:MAX."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping

from perceiver_runtime.errors import UsageError
from perceiver_runtime.tensors import Profile, Range

BATCH = "batch"
MAX_SIZE = 2**31 - 1
"""Largest size of a dimension: TensorRT and ONNX Runtime index many tensors by 32 bits."""


def parse_ranges(texts: Iterable[str]) -> dict[str, Range]:
    """Ranges by dimension from `NAME=MIN:OPT:MAX` or, for a single size, `NAME=SIZE`. Raises UsageError."""
    found: dict[str, Range] = {}
    for text in texts:
        name, _, sizes = text.partition("=")
        numbers = sizes.split(":")
        if not name or len(numbers) not in (1, 3) or not all(n.isascii() and n.isdigit() for n in numbers):
            raise UsageError(f"range {text!r}: expected NAME=MIN:OPT:MAX, such as batch=1:4:16, or NAME=SIZE")
        if name in found:
            raise UsageError(f"range {text!r}: {name} was given as {found[name]} already; give each dimension once")
        low, typical, high = (int(n) for n in (numbers * 3)[:3])
        found[name] = Range(low, typical, high)
    return found


def with_ranges(profile: Profile, ranges: Mapping[str, Range], extensible: Collection[str] = ()) -> Profile:
    """The profile with other ranges, each within the profile's own unless its dimension is `extensible`.

    Raises UsageError for an unknown dimension, or for a range that is not 1 <= MIN <= OPT <= MAX or leaves the
    profile's.
    """
    for name, chosen in ranges.items():
        if name not in profile.dimensions:
            known = ", ".join(f"{n} ({r})" for n, r in profile.dimensions.items()) or "none"
            raise UsageError(f"range {name}={chosen}: no such dynamic dimension; expected one of {known}")
        if not 1 <= chosen.min <= chosen.opt <= chosen.max <= MAX_SIZE:
            raise UsageError(f"range {name}={chosen}: expected 1 <= MIN <= OPT <= MAX <= {MAX_SIZE}")
        own = profile.dimensions[name]
        if name not in extensible and not (own.min <= chosen.min and chosen.max <= own.max):
            raise UsageError(f"range {name}={chosen}: expected sizes within {own.min} to {own.max}")
    return dataclasses.replace(profile, dimensions={**profile.dimensions, **ranges})


def batch_within(profiles: Collection[Profile], wanted: int) -> int:
    """The batch nearest to `wanted` that the profiles of a bundle take."""
    ranges = [profile.dimensions[BATCH] for profile in profiles if BATCH in profile.dimensions]
    return min((min(max(wanted, r.min), r.max) for r in ranges), key=lambda n: abs(n - wanted), default=wanted)
