"""Arguments of wrong types, ranks and values: refused as FeedError or UsageError, by every function that takes them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from perceiver_runtime.errors import FeedError, PerceiverError, UsageError
from perceiver_runtime.execution.generate import Sampling
from perceiver_runtime.processing.colour_wheel import flow_picture
from perceiver_runtime.processing.fill_mask import hide
from perceiver_runtime.processing.flow_error import end_point_error
from perceiver_runtime.processing.image import ImageConfig
from perceiver_runtime.processing.image import preprocess as preprocess_images
from perceiver_runtime.processing.labels import softmax, top_k
from perceiver_runtime.processing.multimodal import fit_video, to_pcm, to_pixels
from perceiver_runtime.processing.multimodal import preprocess as preprocess_clip
from perceiver_runtime.processing.text import ByteTokenizer

ODD: tuple[Any, ...] = (
    None,
    1.5,
    "text",
    b"bytes",
    "\ud800",
    [],
    [1, [2, 3]],
    [None],
    {"a": 1},
    np.zeros(()),
    np.zeros((0, 2)),
    np.zeros((2, 2), object),
    np.full((2, 3, 2), np.nan),
    np.full((4, 4, 3), np.inf, np.float32),
    np.zeros((2, 0), np.uint8),
    np.array(["a", "b"]),
    np.zeros((2, 2), complex),
    np.zeros(3, "datetime64[s]"),
    np.array([2**63], np.uint64),
)
ONE: dict[str, Callable[[Any], object]] = {
    "softmax": softmax,
    "top_k": top_k,
    "k": lambda k: top_k(np.zeros((1, 3)), k=k),
    "labels": lambda labels: top_k(np.zeros((1, 3)), labels),
    "images": preprocess_images,
    "image": lambda image: preprocess_images([image]),
    "video": lambda video: preprocess_clip(video, np.zeros(30720, np.int16)),
    "audio": lambda audio: preprocess_clip(np.zeros((16, 224, 224, 3), np.uint8), audio),
    "fit_video": fit_video,
    "to_pixels": to_pixels,
    "to_pcm": to_pcm,
    "flow_picture": flow_picture,
    "max_speed": lambda speed: flow_picture(np.ones((1, 1, 2), np.float32), speed),
    "valid": lambda valid: end_point_error(np.zeros((1, 2)), np.zeros((1, 2)), valid),  # type: ignore[arg-type]
    "texts": lambda texts: ByteTokenizer().encode(texts),
    "text": lambda text: ByteTokenizer().ids(text),
    "ids": lambda ids: ByteTokenizer().decode(ids),
    "part": lambda part: hide("a \ud800 text", part) if isinstance(part, str) else None,
    "max_length": lambda length: ByteTokenizer(length),
    "padding": lambda padding: ByteTokenizer().encode("a", padding=padding),
    "crop": lambda crop: ImageConfig(crop=crop),
    "height": lambda height: ImageConfig(height=height),
    "mean": lambda mean: ImageConfig(mean=mean),
    "std": lambda std: ImageConfig(std=std),
    "seed": lambda seed: Sampling(seed=seed),
    "top k": lambda k: Sampling(top_k=k),
    "temperature": lambda temperature: Sampling(temperature=temperature),
}


def _refused(call: Callable[[Any], object], value: Any) -> bool:
    try:
        call(value)
    except PerceiverError:
        return True
    return False


@pytest.mark.parametrize("name", ONE)
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_one_argument(name: str) -> None:
    assert any(_refused(ONE[name], value) for value in ODD)
    for value in ODD:
        _refused(ONE[name], value)


def test_two_flows() -> None:
    for flow, truth in itertools.product(ODD, ODD):
        with pytest.raises((FeedError, UsageError)):
            end_point_error(flow, truth)


def test_half_a_surrogate_pair_has_no_bytes() -> None:
    with pytest.raises(FeedError, match="half a surrogate pair at 2"):
        ByteTokenizer().encode("a \ud800 b")


def test_numpy_integers_are_integers() -> None:
    assert ByteTokenizer(np.int64(8)).max_length == 8  # type: ignore[arg-type]
    assert Sampling(top_k=np.int32(3)).top_k == 3  # type: ignore[arg-type]
    assert len(top_k(np.zeros((1, 3)), k=np.int64(2))[0]) == 2  # type: ignore[arg-type]
