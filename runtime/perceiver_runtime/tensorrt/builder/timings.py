"""Kernel timings in a file that builds of any number of bundles share, one after the other or at the same time."""

from __future__ import annotations

from pathlib import Path

from perceiver_runtime.errors import UsageError
from perceiver_runtime.format.outputs import exclusive, replacing
from perceiver_runtime.tensorrt.api import IBuilderConfig, ITimingCache


def use_timings(config: IBuilderConfig, path: Path) -> None:
    """Give a build the timings of a file, if it exists. Raises UsageError if they are another GPU's or TensorRT's."""
    cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise UsageError(f"{path}: no timings of this TensorRT on this GPU; give another file")


def keep_timings(config: IBuilderConfig, path: Path) -> None:
    """Add a build's timings to the file. Those that other builds have added meanwhile stay."""
    with exclusive(path):
        cache: ITimingCache = config.get_timing_cache()
        others = config.create_timing_cache(path.read_bytes()) if path.exists() else None
        if others is not None and not cache.combine(others, ignore_mismatch=False):
            raise UsageError(f"{path}: no timings of this TensorRT on this GPU; give another file")
        with replacing(path, follow=False) as partial:
            partial.write_bytes(bytes(cache.serialize()))
