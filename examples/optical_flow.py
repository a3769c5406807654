"""Optical flow between two frames, drawn with the colour wheel (by default scikit-image's stereo pair).

python examples/optical_flow.py -o flow.png                        # a small model with random weights
python examples/optical_flow.py --checkpoint deepmind/optical-flow-perceiver --frames first.png second.png
python examples/optical_flow.py --bundle flow                      # a bundle of `perceiver-export export`

The stereo pair has a ground truth: everything moves to the left by its disparity. It is drawn to `flow-truth.png`.
Needs pillow and, without frames, scikit-image.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bundles import add_arguments, opened
from PIL import Image

from perceiver_runtime.processing.colour_wheel import flow_picture
from perceiver_runtime.processing.flow import FlowOptions, Frame, predict_flow
from perceiver_runtime.processing.flow_error import end_point_error
from perceiver_runtime.processing.labels import Floats


def load(paths: Sequence[str]) -> tuple[Frame, Frame, Floats | None]:
    """Two RGB frames (H, W, 3), and the true flow (H, W, 2) where it is known: infinite where a pixel is hidden."""
    if paths:
        first, second = (np.asarray(Image.open(path).convert("RGB")) for path in paths)
        return first, second, None
    from skimage.data import stereo_motorcycle

    left, right, disparity = stereo_motorcycle()
    return left, right, np.stack([-disparity, np.zeros_like(disparity)], axis=-1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the picture; print the range of the flow and its error where the truth is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--frames", nargs=2, default=(), metavar=("FIRST", "SECOND"))
    parser.add_argument("--overlap", type=int, default=FlowOptions().overlap, help="pixels that tiles share")
    parser.add_argument("-o", "--out", type=Path, default=Path("flow.png"))
    given = parser.parse_args(arguments)
    first, second, truth = load(given.frames)
    with opened(given, "optical-flow-perceiver") as session:
        flow = predict_flow(session, first, second, FlowOptions(overlap=given.overlap))
    Image.fromarray(flow_picture(flow)).save(given.out)
    speed = np.hypot(flow[..., 0], flow[..., 1])
    print(
        f"{given.out}: {flow.shape[1]} x {flow.shape[0]}, mean speed {speed.mean():.2f} px, largest {speed.max():.2f}"
    )
    if truth is not None:
        known = np.where(np.isfinite(truth), truth, 0)
        Image.fromarray(flow_picture(known)).save(given.out.with_stem(f"{given.out.stem}-truth"))
        print(f"end-point error {end_point_error(flow, truth):.2f} px")


if __name__ == "__main__":
    main()
