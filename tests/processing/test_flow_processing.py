"""Patches, tiles, blending, video and pictures of optical flow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from perceiver_runtime.errors import FeedError, UsageError
from perceiver_runtime.execution.session import Session
from perceiver_runtime.processing import flow as flow_module
from perceiver_runtime.processing.colour_wheel import flow_picture, wheel
from perceiver_runtime.processing.flow import FlowOptions, predict_flow, stream_flow
from perceiver_runtime.processing.flow_error import end_point_error
from perceiver_runtime.processing.patches import patches
from perceiver_runtime.processing.tiling import Blend, Tiling

SMALL = FlowOptions(overlap=5)


def frame(height: int = 20, width: int = 30, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@st.composite
def tilings(draw: st.DrawFn) -> Tiling:
    tile = draw(st.integers(2, 12)), draw(st.integers(2, 12))
    size = [t + draw(st.integers(0, 40)) for t in tile]
    return Tiling(*size, *tile, overlap=draw(st.integers(0, min(tile) - 1)))  # type: ignore[call-arg]


def test_patches_equal_unfold() -> None:
    image = frame(9, 7)
    normalised = torch.from_numpy(image / 255.0 * 2 - 1).float().permute(2, 0, 1)[None]
    unfolded = torch.nn.functional.unfold(normalised, 3, padding=1).reshape(3, 9, 9, 7)
    expected = unfolded.permute(1, 0, 2, 3).reshape(27, 9, 7)  # neighbours first, then channels
    np.testing.assert_array_equal(patches(image), expected.numpy())


@given(tilings())
def test_tiles_cover_the_frame_lie_inside_and_overlap(tiling: Tiling) -> None:
    covered = np.zeros((tiling.height, tiling.width), int)
    for window in tiling.windows:
        assert covered[window].shape == (tiling.tile_height, tiling.tile_width)
        covered[window] += 1
    assert covered.min() >= 1
    for axis in range(2):
        starts = sorted({window[axis].start for window in tiling.windows})
        tile = (tiling.tile_height, tiling.tile_width)[axis]
        assert all(b - a <= tile - tiling.overlap for a, b in itertools.pairwise(starts))


@given(tilings())
def test_weights_are_a_partition_of_unity(tiling: Tiling) -> None:
    total = np.zeros((tiling.height, tiling.width))
    for window in tiling.windows:
        total[window] += tiling.weights
    shares = np.zeros_like(total)
    for window in tiling.windows:
        shares[window] += tiling.weights / total[window]
    np.testing.assert_allclose(shares, 1.0, rtol=1e-14)


@given(tilings(), st.floats(-500, 500, width=32))
def test_a_constant_flow_is_blended_to_itself_exactly(tiling: Tiling, value: float) -> None:
    blend = Blend(tiling, 2)
    for window in tiling.windows:
        blend.add(window, np.full((tiling.tile_height, tiling.tile_width, 2), value, np.float32))
    assert (blend.result() == np.float32(value)).all()


@pytest.mark.parametrize("size", [(436, 1024), (375, 1242), (500, 741), (720, 1280)])
def test_tiles_are_those_of_the_published_demonstration(size: tuple[int, int]) -> None:
    """Its starts: every (tile - overlap) pixels within the frame, the last one moved to be flush with the frame."""
    tile = (368, 496)
    axes = [[*list(range(0, s, t - 20))[:-1], s - t] for s, t in zip(size, tile, strict=True)]
    got = [(rows.start, columns.start) for rows, columns in Tiling(*size, *tile).windows]
    assert got == list(itertools.product(*axes))


def test_no_tile_leaves_a_frame_on_which_the_demonstration_fails() -> None:
    starts = sorted({columns.start for _, columns in Tiling(1080, 1920, 368, 496).windows})
    assert starts == [0, 476, 952, 1424]


def test_weights_are_those_of_the_published_demonstration() -> None:
    np.testing.assert_array_equal(
        Tiling(4, 5, 4, 5, overlap=1).weights, [[1, 1, 1, 1, 1], [1, 2, 2, 2, 1], [1, 2, 2, 2, 1], [1, 1, 1, 1, 1]]
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 10, 4, 8, 4), "expected an overlap of 0 to 3, got 4"),
        ((3, 10, 4, 8, 1), "expected a frame of at least 4 x 8, got 3 x 10"),
    ],
)
def test_impossible_tilings_are_refused(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Tiling(*arguments)


@pytest.mark.parametrize("size", [(12, 16), (20, 30), (40, 17), (5, 30), (5, 7)])
def test_flow_of_any_size_is_right_everywhere(flow_session: Session, size: tuple[int, int]) -> None:
    first, second = frame(*size), frame(*size, seed=1)
    got = predict_flow(flow_session, first, second, SMALL)
    red = [f[..., 0] / 127.5 - 1 for f in (first, second)]
    assert (got.dtype, got.shape) == (np.float32, (*size, 2))
    np.testing.assert_allclose(got, np.stack([red[1] - red[0], red[0]], axis=-1), atol=2e-6)


@pytest.mark.parametrize("size", [(12, 16), (20, 30), (5, 7), (40, 60)])
def test_a_video_gives_what_its_pairs_give(flow_session: Session, size: tuple[int, int]) -> None:
    """Bit by bit: frames of one tile, of some, smaller than a tile, and of more tiles than are kept."""
    video = [frame(*size, seed=seed) for seed in range(4)]
    streamed = list(stream_flow(flow_session, iter(video), SMALL))
    assert len(streamed) == 3
    for got, pair in zip(streamed, itertools.pairwise(video), strict=True):
        np.testing.assert_array_equal(got, predict_flow(flow_session, *pair, SMALL))


def test_a_video_prepares_every_frame_once(flow_session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    normalise = flow_module.normalise
    monkeypatch.setattr(flow_module, "normalise", lambda image: (seen.append(image), normalise(image))[1])
    list(stream_flow(flow_session, [frame(seed=seed) for seed in range(4)], SMALL))
    assert len(seen) == 4


@pytest.mark.parametrize("size", [(12, 16), (20, 30), (40, 60)])
def test_a_video_gathers_the_patches_of_kept_tiles_once(
    flow_session: Session, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    seen = []
    gather = flow_module.gather_patches
    monkeypatch.setattr(flow_module, "gather_patches", lambda tile, out: (seen.append(0), gather(tile, out)))
    tiles, frames = len(Tiling(*size, 12, 16, overlap=SMALL.overlap).windows), 4
    kept = min(tiles, flow_module.KEPT_TILES)
    list(stream_flow(flow_session, [frame(*size, seed=seed) for seed in range(frames)], SMALL))
    assert len(seen) == kept * frames + (tiles - kept) * 2 * (frames - 1)
    seen.clear()
    predict_flow(flow_session, frame(*size), frame(*size, seed=1), SMALL)
    assert len(seen) == 2 * tiles


def test_frames_of_two_sizes_are_refused(flow_session: Session) -> None:
    with pytest.raises(FeedError, match=r"frame 1: expected the size .* \[20, 30\], got \[20, 31\]"):
        predict_flow(flow_session, frame(20, 30), frame(20, 31), SMALL)


def test_float_frames_are_refused(flow_session: Session) -> None:
    with pytest.raises(FeedError, match=r"expected frame: uint8\[height, width, 3\], got float32"):
        predict_flow(flow_session, frame().astype(np.float32), frame(), SMALL)


def test_another_model_is_refused(text_session: Session) -> None:
    with pytest.raises(UsageError, match="expected an input inputs: float32"):
        predict_flow(text_session, frame(), frame())


def test_the_wheel_has_its_published_arcs() -> None:
    assert wheel().shape == (55, 3)
    np.testing.assert_array_equal(
        wheel()[[0, 15, 21, 25, 36, 49]],
        [[255, 0, 0], [255, 255, 0], [0, 255, 0], [0, 255, 255], [0, 0, 255], [255, 0, 255]],
    )
    np.testing.assert_array_equal(wheel()[[1, 16, 54]], [[255, 17, 0], [213, 255, 0], [255, 0, 43]])


def test_directions_have_their_hue_and_rest_is_white() -> None:
    flows = np.array([[[0, 0], [4, 0], [4, -0.0], [0, 4], [-4, 0], [0, -4]]], np.float32)
    still, right, right_too, down, left, up = flow_picture(flows)[0].astype(int)
    assert still.tolist() == [255, 255, 255]
    assert right.tolist() == right_too.tolist() == [255, 0, 0]
    assert down[0] > 200
    assert down[1] > 200
    assert left.tolist() == [0, 209, 255]  # half way round, colour 27: floor(255 * 2 / 11) = 46 below cyan
    assert up[2] > 200
    assert up[1] == 0


def test_slow_flow_is_pale_and_flow_beyond_the_scale_is_dim() -> None:
    flows = np.array([[[1, 0], [2, 0], [8, 0]]], np.float32)
    assert flow_picture(flows, max_speed=2).tolist() == [[[255, 127, 127], [255, 0, 0], [191, 0, 0]]]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flow_picture(np.zeros((3, 4), np.float32)), r"got float32\[3, 4\]"),
        (lambda: flow_picture(np.full((3, 4, 2), np.nan, np.float32)), "finite"),
        (lambda: flow_picture(np.zeros((3, 4, 2), np.float32), max_speed=0), "more than 0"),
        (lambda: end_point_error(np.zeros((3, 4, 2)), np.zeros((3, 5, 2))), r"\[3, 4, 2\] and \[3, 5, 2\]"),  # type: ignore[arg-type]
        (lambda: end_point_error(np.zeros((3, 2)), np.full((3, 2), np.inf)), "at least one valid"),  # type: ignore[arg-type]
        (lambda: end_point_error(np.zeros((3, 2)), np.zeros((3, 2)), np.ones(2, bool)), r"got bool\[2\]"),  # type: ignore[arg-type]
    ],
)
def test_misfits_are_refused(call: object, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        call()


def test_end_point_error_is_the_mean_distance_over_known_pixels() -> None:
    flow = np.array([[3, 4], [0, 1], [9, 9]], np.float32)
    truth = np.array([[0, 0], [0, 0], [np.inf, 0]])
    assert end_point_error(flow, truth) == pytest.approx(3.0)
    assert end_point_error(flow, np.zeros((3, 2)), np.array([True, False, False])) == pytest.approx(5.0)
