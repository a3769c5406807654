"""Optical flow as an image: hue for direction, saturation for speed (Baker et al. 2011, the Middlebury benchmark).

The wheel goes from red over yellow, green, cyan, blue and magenta back to red, in six arcs of 55 colours in all.
Rightward flow is red, no flow is white.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from perceiver_runtime.errors import FeedError
from perceiver_runtime.processing.expect import expect_numbers
from perceiver_runtime.processing.labels import Floats

Table = npt.NDArray[np.float64]

ARCS = (
    ((255, 0, 0), (0, 1, 0), 15),
    ((255, 255, 0), (-1, 0, 0), 6),
    ((0, 255, 0), (0, 0, 1), 4),
    ((0, 255, 255), (0, -1, 0), 11),
    ((0, 0, 255), (1, 0, 0), 13),
    ((255, 0, 255), (0, 0, -1), 6),
)
"""Each arc's first colour, the channel that rises or falls along it, and its number of colours."""

DIMMED = 0.75
"""Brightness of flows beyond the largest speed shown."""


@functools.cache
def wheel() -> Table:
    """The 55 colours of the wheel, RGB in 0 to 255: (55, 3)."""
    arcs = [
        np.add(first, np.outer(np.floor(255 * np.arange(count) / count), direction)) for first, direction, count in ARCS
    ]
    return np.concatenate(arcs)


def flow_picture(flow: Floats, max_speed: float | None = None) -> npt.NDArray[np.uint8]:
    """Draw a flow (H, W, 2) as an RGB picture (H, W, 3). Full colour is `max_speed` pixels (None: the fastest).

    Raises FeedError for another shape, a flow that is not finite, or a largest speed that is not positive.
    """
    expect_numbers("flow", flow, ("height", "width", 2), "set unknown pixels to 0")
    if max_speed is not None and not (isinstance(max_speed, (int, float)) and 0 < max_speed < np.inf):
        raise FeedError(f"max_speed: expected a number of more than 0, got {max_speed!r:.40}")
    u, v = flow[..., 0].astype(np.float64), flow[..., 1].astype(np.float64)
    speed = np.hypot(u, v)
    relative = (speed / (max_speed or speed.max(initial=0.0) or 1.0))[..., None]
    colour = _hue(u, v)
    shown = np.where(relative <= 1.0, 1.0 - relative * (1.0 - colour), DIMMED * colour)
    picture: npt.NDArray[np.uint8] = np.floor(255 * shown).astype(np.uint8)
    return picture


def _hue(u: Table, v: Table) -> Table:
    """Colours (..., 3) in [0, 1] of directions: between the two nearest of the wheel."""
    colours = wheel()
    # Adding 0 makes negative zeros positive: level flow is at the start of the wheel, never at its end.
    place = (np.arctan2(-(v + 0.0), -u) / np.pi + 1.0) / 2.0 * (len(colours) - 1)
    lower = np.floor(place).astype(np.int64)
    upper = (lower + 1) % len(colours)
    part = (place - lower)[..., None]
    mixed: Table = ((1.0 - part) * colours[lower] + part * colours[upper]) / 255.0
    return mixed
