"""Fourier features of a grid from its axes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from perceiver_deploy.models.multimodal import coordinates_of
from perceiver_deploy.models.positions import SPACINGS, GridPositions, fourier_features, grid

SIZES, BANDS = (3, 5, 4), 6


def test_all_points_are_the_features_of_the_grid():
    table = fourier_features(grid(SIZES), SIZES, BANDS)
    assert torch.equal(GridPositions(SIZES, SIZES, BANDS).all(), table)


@pytest.mark.parametrize("spacing", ["full", "subsampled"])
@pytest.mark.parametrize("order", ["kind", "axis"])
def test_points_by_coordinates_are_rows_of_all_points(spacing, order):
    positions = GridPositions(SIZES, SIZES, BANDS, spacing, order)
    index = torch.randperm(math.prod(SIZES))[:17]
    assert torch.equal(positions(coordinates_of(index, SIZES)), positions.all()[index])


def test_orders_hold_the_same_features():
    by_kind, by_axis = (GridPositions(SIZES, SIZES, BANDS, order=order).all() for order in ("kind", "axis"))
    axis = 1 + 2 * BANDS
    assert by_axis.shape == by_kind.shape
    assert torch.equal(by_axis[:, axis - 1 :: axis], by_kind[:, :3])
    assert torch.equal(by_axis[:, axis : axis + BANDS], by_kind[:, 3 + BANDS : 3 + 2 * BANDS])


def test_subsampled_points_stop_short_of_the_end():
    assert SPACINGS["subsampled"](4).tolist() == [-1, -0.5, 0, 0.5]
    assert SPACINGS["full"](5).tolist() == [-1, -0.5, 0, 0.5, 1]


def test_thousands_of_radians_keep_their_digits():
    """Audio reaches 48,255 rad, where FP32 arguments are off by 2e-3."""
    table = GridPositions((1920,), (30720,), 192).all().double().numpy()
    angle = np.pi * np.linspace(-1, 1, 1920)[:, None] * np.linspace(1, 15360, 192)
    assert np.abs(table[:, 1:193] - np.sin(angle)).max() < 1e-7


def test_no_table_grows_with_the_grid():
    positions = GridPositions((16, 224, 224), (16, 224, 224), 32)
    assert sum(b.numel() for b in positions.buffers()) == (16 + 224 + 224) * 65
    assert not positions.state_dict()
