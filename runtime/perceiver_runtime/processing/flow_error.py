"""Error of an optical flow."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import FeedError
from perceiver_runtime.processing.expect import expect_numbers
from perceiver_runtime.processing.labels import Floats


def end_point_error(flow: Floats, truth: npt.NDArray[Any], valid: npt.NDArray[np.bool_] | None = None) -> float:
    """Mean distance in pixels between two flows (..., 2), over the `valid` (...) pixels; by default the finite truth.

    Baker et al. 2011, section 4.1. Raises FeedError for shapes that do not fit or no valid pixel.
    """
    for name, array in (("flow", flow), ("truth", truth)):
        expect_numbers(name, array, ("...", 2), finite=False)
    if flow.shape != truth.shape:
        raise FeedError(f"flow: expected the shape of the truth, got {list(flow.shape)} and {list(truth.shape)}")
    counted = np.isfinite(truth).all(axis=-1) if valid is None else valid
    if not isinstance(counted, np.ndarray):
        raise FeedError(f"valid: expected a NumPy array of bool, got {type(counted).__name__}")
    if counted.shape != flow.shape[:-1] or counted.dtype != bool:
        raise FeedError(f"valid: expected bool{list(flow.shape[:-1])}, got {counted.dtype}{list(counted.shape)}")
    if not counted.any():
        raise FeedError("valid: expected at least one valid pixel, got none")
    for name, array in (("flow", flow), ("truth", truth)):
        expect_numbers(f"{name} of valid pixels", array[counted])
    difference = flow[counted].astype(np.float64) - truth[counted]
    return float(np.hypot(difference[:, 0], difference[:, 1]).mean())
