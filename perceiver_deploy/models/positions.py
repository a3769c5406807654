"""Fourier position encodings, computed in FP64 once and stored in FP32.

Arguments reach pi * max_frequency (352 rad for images, 48,255 for audio): in FP16 or even FP32 arithmetic the
sine of such a number is noise, so the tables are constants of the model rather than a part of its graph.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

Table = np.ndarray[tuple[int, ...], np.dtype[np.float64]]
Spacing = Literal["full", "subsampled"]
Order = Literal["kind", "axis"]
Bands = Literal["linear", "logarithmic"]

MAX_VALUES = 1 << 25
"""Of one table: 256 MiB in FP64."""

SPACINGS: dict[Spacing, Callable[[int], Table]] = {
    "full": lambda n: np.linspace(-1.0, 1.0, n),
    "subsampled": lambda n: -1.0 + 2.0 * np.arange(n) / n,
}
"""Where n points lie on an axis: when all of a grid is used, and when points of it are asked for by index."""

BANDS: dict[Bands, Callable[[float, int], Table]] = {
    "linear": lambda highest, n: np.linspace(1.0, highest, n),
    "logarithmic": lambda highest, n: np.geomspace(1.0, highest, n),
}
"""Spacing of n frequencies from 1 to the highest."""


def grid(sizes: Sequence[int]) -> Table:
    """Positions linspace(-1, 1) on every axis of a grid, row major: (prod(sizes), len(sizes))."""
    _bounded(math.prod(sizes), len(sizes))
    axes = [np.linspace(-1.0, 1.0, n) for n in sizes]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(sizes))


def fourier_features(
    positions: Table,
    resolution: Sequence[float],
    bands: int,
    *,
    concat_positions: bool = True,
    sine_only: bool = False,
    spaced: Bands = "linear",
) -> Tensor:
    """Encode positions (M, d) in [-1, 1] as (M, [d +] d * bands * (1 or 2)) features, FP32.

    Frequencies run from 1 to resolution / 2 per axis, linearly unless `spaced` says otherwise; order: positions, all
    sines, all cosines (Jaegle et al. 2021, appendix D).
    """
    _bounded(len(positions), len(resolution) * bands)
    frequencies = np.stack([BANDS[spaced](r / 2, bands) for r in resolution])
    angles = (np.pi * positions[:, :, None] * frequencies[None]).reshape(len(positions), -1)
    parts = [positions] if concat_positions else []
    parts += [np.sin(angles)] if sine_only else [np.sin(angles), np.cos(angles)]
    return torch.from_numpy(np.concatenate(parts, axis=-1).astype(np.float32))


def _bounded(rows: int, columns: int) -> None:
    """Refuse a table that a wrong size asks for, before it takes the machine's memory."""
    if rows * columns > MAX_VALUES:
        raise ValueError(f"a table of {rows:,} x {columns:,} positions; at most {MAX_VALUES:,} values are made")


def fourier_dim(axes: int, bands: int, *, concat_positions: bool = True, sine_only: bool = False) -> int:
    """Width of `fourier_features` over a grid of that many axes."""
    return axes * bands * (1 if sine_only else 2) + (axes if concat_positions else 0)


class GridPositions(nn.Module):
    """Fourier features of a grid's points, from one small table per axis.

    The features of a point are those of its coordinates, axis by axis, so a table of n rows per axis replaces one
    of prod(sizes) rows: 0.12 MB instead of 626 for a video of 16 x 224 x 224 points. `resolution` sets the highest
    frequency of each axis; `order` lays features out by "kind" (positions, sines, cosines: Perceiver IO) or by "axis"
    (each axis' sines, cosines, position: the original Perceiver). `spaced` is the spacing of the frequencies.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        resolution: Sequence[float],
        bands: int,
        spacing: Spacing = "full",
        order: Order = "kind",
        spaced: Bands = "linear",
    ) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.dim = fourier_dim(len(self.sizes), bands)
        for axis, (size, highest) in enumerate(zip(sizes, resolution, strict=True)):
            table = fourier_features(SPACINGS[spacing](size)[:, None], [highest], bands, spaced=spaced)
            self.register_buffer(f"axis{axis}", table, persistent=False)
        position, sine, cosine = slice(0, 1), slice(1, 1 + bands), slice(1 + bands, 1 + 2 * bands)
        axes = range(len(self.sizes))
        by_kind = [(axis, kind) for kind in (position, sine, cosine) for axis in axes]
        by_axis = [(axis, kind) for axis in axes for kind in (sine, cosine, position)]
        self._columns = by_kind if order == "kind" else by_axis

    def forward(self, coordinates: Tensor) -> Tensor:
        """Features (O, dim) of points given by integer coordinates (O, axes)."""
        rows = [self._table(axis)[coordinates[:, axis]] for axis in range(len(self.sizes))]
        return torch.cat([rows[axis][:, columns] for axis, columns in self._columns], dim=-1)

    def all(self) -> Tensor:
        """Features (prod(sizes), dim) of every point, row major."""
        return self._spread([self._table(axis) for axis in range(len(self.sizes))])

    def slices(self, index: Tensor) -> Tensor:
        """Features (O * prod(sizes[1:]), dim) of slices (O,) of the first axis: rows of an image, say."""
        return self._spread([self._table(0)[index], *(self._table(axis) for axis in range(1, len(self.sizes)))])

    def _table(self, axis: int) -> Tensor:
        table: Tensor = getattr(self, f"axis{axis}")
        return table

    def _spread(self, tables: list[Tensor]) -> Tensor:
        """One table per axis to the features of all combinations of their rows."""
        sizes, ones = [table.shape[0] for table in tables], [1] * len(tables)
        rows = [
            table.view(*ones[:axis], table.shape[0], *ones[axis + 1 :], -1).expand(*sizes, -1)
            for axis, table in enumerate(tables)
        ]
        return torch.cat([rows[axis][..., columns] for axis, columns in self._columns], dim=-1).flatten(0, -2)
