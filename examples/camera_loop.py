"""Classify what a camera sees, frame by frame: the newest frame wins, and what comes late is counted.

perceiver-export export fashion-perceiver -o bundle --fold-preprocessing 480x640
python examples/camera_loop.py bundle /dev/video0                  # a camera (needs OpenCV)
python examples/camera_loop.py bundle frames.npy --rate 30         # frames (N, ...) as the bundle takes them
python examples/camera_loop.py bundle photos/ --rate 30            # a directory of images (needs pillow)

The bundle takes frames of 8 bits, in uint8 or NV12 (`--fold-preprocessing`). SIGTERM and Ctrl-C end the loop after the
frame that is under way. Under systemd (Type=notify) it says when it is ready, and feeds the watchdog with every answer:
see perceiver-camera.service. Needs perceiver-runtime alone, and OpenCV or pillow where it says so.
"""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perceiver_runtime import FeedError, Session, UnavailableError, UsageError, open_session
from perceiver_runtime.cli.exits import run_program
from perceiver_runtime.loop import Frame, Hang, Loop, LoopReport, paced
from perceiver_runtime.processing.processor import processor_of
from perceiver_runtime.tensors import Array, TensorSpec

INPUT = "frames"
VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm")


def notify(state: str) -> None:
    """Tell systemd, if it started this program: the sd_notify protocol over the socket that it names."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + address[1:] if address.startswith("@") else address)
            sender.sendall(state.encode())


def open_frames(source: str, spec: TensorSpec, rate: float | None, repeat: bool) -> Iterator[Array]:
    """Frames of a device, a video, an .npy file or a directory; recorded ones at a rate, again and again on request."""
    path = Path(source)
    if path.suffix == ".npy":
        recorded: Callable[[], Iterator[Array]] = lambda: iter(np.load(path, mmap_mode="r"))  # noqa: E731
    elif path.is_dir():
        recorded = lambda: _images(path)  # noqa: E731
    elif path.suffix in VIDEOS:
        recorded = lambda: _capture(source, spec, camera=False)  # noqa: E731
    elif source.startswith("/dev/"):
        return _capture(source, spec, camera=True)
    else:
        raise UsageError(f"{source}: expected a device, a directory of images, an .npy file or one of {VIDEOS}")
    if not path.exists():
        raise UsageError(f"{source}: no such file; check the path")
    frames = itertools.chain.from_iterable(recorded() for _ in (itertools.count() if repeat else range(1)))
    return paced(frames, rate) if rate else frames


def _images(folder: Path) -> Iterator[Array]:
    """Images of a directory, in the order of their names."""
    from PIL import Image

    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"))
    if not paths:
        raise UsageError(f"{folder}: expected images (.png, .jpg, .bmp), found none")
    for path in paths:
        yield np.asarray(Image.open(path))


def _capture(source: str, spec: TensorSpec, *, camera: bool) -> Iterator[Array]:
    """Frames of a camera or a video through OpenCV."""
    try:
        import cv2
    except ImportError as error:
        raise UnavailableError(
            f"{source}: OpenCV is not installed; pip install opencv-python-headless, or name an .npy file"
        ) from error
    nv12 = spec.rank == 3
    height, width = int(spec.shape[1]), int(spec.shape[2])
    device = cv2.VideoCapture(source, cv2.CAP_V4L2 if camera else cv2.CAP_ANY)
    try:
        if camera:
            device.set(cv2.CAP_PROP_FRAME_WIDTH, width)
            device.set(cv2.CAP_PROP_FRAME_HEIGHT, height * 2 // 3 if nv12 else height)
            device.set(cv2.CAP_PROP_BUFFERSIZE, 1)
            if nv12:
                device.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"NV12"))
                device.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        while True:
            read, image = device.read()
            if not read and camera:
                raise UnavailableError(f"{source}: the camera gives no frame; check that it is plugged in and free")
            if not read:
                return
            if nv12:
                yield image.reshape(height, width)
            else:
                yield image[..., :1] if spec.shape[3] == 1 else np.ascontiguousarray(image[..., ::-1])
    finally:
        device.release()


def feeds_of(frame: Array, spec: TensorSpec) -> dict[str, Array]:
    """One frame as the session takes it; a grey image has no axis for its channel."""
    shape = tuple(int(size) for size in spec.shape[1:])
    if frame.shape != shape and frame.shape == shape[:-1] and shape[-1:] == (1,):
        frame = frame[..., None]
    if frame.dtype != np.uint8 or frame.shape != shape:
        raise FeedError(
            f"{INPUT}: expected uint8 {list(shape)}, got {frame.dtype} {list(frame.shape)}; "
            "set the camera's size, or export again with --fold-preprocessing HEIGHTxWIDTH"
        )
    return {INPUT: np.ascontiguousarray(frame)[None]}


def describe(report: LoopReport) -> str:
    """A line about what the loop has done."""
    latency = report.latency
    times = "latency not measured" if latency is None else f"latency {latency.p50:.4f} s, p99 {latency.p99:.4f} s"
    missed = "" if report.missed is None else f", {report.missed} late"
    return f"{report.frames} frames, {report.answered} answered, {report.dropped} dropped{missed}; {times}"


class Camera:
    """Prints answers, and tells systemd that there are some."""

    def __init__(self, session: Session, given: argparse.Namespace) -> None:
        self.processor = processor_of(session.manifest)
        self.labels = session.manifest.labels
        self.every = max(1, given.every)
        self.loop = Loop(
            session,
            self.answer,
            rate_hz=given.run_rate,
            deadline_s=given.deadline,
            limit_s=given.limit,
            on_hang=self.hangs,
        )

    def answer(self, outputs: dict[str, Array], frame: Frame) -> None:
        """Print an answer; the first one makes the service ready."""
        report = self.loop.report()
        if report.answered == 1:
            notify("READY=1")
        notify("WATCHDOG=1")
        if (report.answered - 1) % self.every:
            return
        (decoded,) = self.processor.decode(outputs, self.labels, 1)
        answers = (f"{name} {self.shown(value)}" for name, value in decoded.items())
        print(f"frame {frame.index}: {', '.join(answers)}", flush=True)
        notify(f"STATUS={describe(report)}")

    def shown(self, value: Any) -> str:
        """The likeliest class, or the shape of what is no class."""
        if isinstance(value, list):
            return f"{value[0].label} {value[0].probability:.1%}"
        return str(value) if np.size(value) <= 4 else f"of shape {list(np.shape(value))}"

    def hangs(self, hang: Hang) -> None:
        """Nothing feeds the watchdog while a run hangs: systemd ends this program and starts it again."""
        print(f"frame {hang.frame}: no answer after {hang.limit_s} s", file=sys.stderr, flush=True)
        notify(f"STATUS=frame {hang.frame} hangs")


def run(given: argparse.Namespace) -> int:
    """Answer frames until the source ends or a signal comes."""
    with open_session(given.bundle, given.backend) as session:
        spec = next((spec for spec in session.inputs if spec.name == INPUT), None)
        if spec is None or not all(isinstance(size, int) for size in spec.shape[1:]):
            raise UsageError(f"{given.bundle}: takes no frames; export it with --fold-preprocessing HEIGHTxWIDTH")
        camera = Camera(session, given)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: camera.loop.stop())
        print(f"{given.bundle}: {session.runs_on.backend}, {spec}", flush=True)
        frames = open_frames(given.frames, spec, given.rate, given.repeat)
        report = camera.loop.run(feeds_of(frame, spec) for frame in frames)
    notify("STOPPING=1")
    print(describe(report), flush=True)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("frames", help="device, video, .npy file, or directory of images")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--rate", type=float, help="recorded frames per second (default: as fast as they are read)")
    parser.add_argument("--repeat", action="store_true", help="recorded frames again and again")
    parser.add_argument("--run-rate", type=float, help="runs per second (default: as fast as it goes)")
    parser.add_argument("--deadline", type=float, help="seconds from frame to answer; later ones are counted")
    parser.add_argument("--limit", type=float, default=5.0, help="seconds after which a run counts as hanging")
    parser.add_argument("--every", type=int, default=1, help="print each n-th answer")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the exit codes are those of `perceiver-run`."""
    given = parser().parse_args(arguments)
    return run_program("camera_loop.py", "error", lambda: run(given), as_json=False)


if __name__ == "__main__":
    sys.exit(main())
