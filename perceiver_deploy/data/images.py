"""Images and frames from files: a folder with one subfolder per class, and pairs of frames with their flow."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from perceiver_deploy.data.source import FileSource, Indices, Record, Sample, class_number
from perceiver_runtime.errors import DatasetError, UnavailableError
from perceiver_runtime.evaluation.interface import Interface, located
from perceiver_runtime.processing.files import read_image
from perceiver_runtime.tensors import Array

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp"))
FLO_MAGIC = b"PIEH"
"""The first bytes of a .flo file (Middlebury): the number 202021.25."""


@dataclass(frozen=True)
class ImageFolder(FileSource):
    """A directory with one subdirectory of images per class."""

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """Names of the subdirectories in alphabetical order; numbers in theirs."""
        names = {place.partition("/")[0] for place in self._files}
        return tuple(sorted(names, key=lambda name: (int(name), name) if name.isdecimal() else (0, name)))

    @cached_property
    def _files(self) -> tuple[str, ...]:
        """Places of the images, as `CLASS/NAME`: texts take less memory than paths."""
        found = (f for f in self.path.glob("*/*") if f.suffix.lower() in SUFFIXES and not f.name.startswith("."))
        return tuple(sorted(f"{file.parent.name}/{file.name}" for file in found))

    def count(self, interface: Interface) -> int:
        """Number of image files."""
        return len(self._files)

    def read(self, interface: Interface, wanted: Indices) -> Iterator[Sample]:
        """Only the wanted images are decoded."""
        main = interface.outputs[0]
        channels = _channels(interface)
        for file in (self.path / self._files[i] for i in wanted.tolist()):
            with located(str(file)):
                label = class_number(file.parent.name, main, interface, self.classes)
                sample = Sample(item=read_image(file, channels), targets={main.name: np.int64(label)})
            yield sample

    def first(self) -> Record:
        """The first image."""
        return {"image": read_image(self.path / self._files[0])}


@dataclass(frozen=True)
class FlowPairs(FileSource):
    """Pairs of frames with the flow from the first to the second, in one of the layouts of `flow_pairs`."""

    pairs: tuple[tuple[Path, Path, Path], ...]

    def count(self, interface: Interface) -> int:
        """Number of pairs."""
        return len(self.pairs)

    def read(self, interface: Interface, wanted: Indices) -> Iterator[Sample]:
        """Only the wanted files are decoded; the middle of larger frames is taken."""
        main = interface.outputs[0]
        for first, second, flow in (self.pairs[i] for i in wanted.tolist()):
            with located(str(flow)):
                frames, truth = (read_image(first), read_image(second)), read_flow(flow)
                if not frames[0].shape[:2] == frames[1].shape[:2] == truth.shape[:2]:
                    sizes = " and ".join(str(list(each.shape[:2])) for each in (*frames, truth))
                    raise DatasetError(f"expected two frames and a flow of one size, got {sizes}")
                wanted_sizes = main.shape[1:3]
                height, width = (
                    n if isinstance(n, int) else size for n, size in zip(wanted_sizes, truth.shape, strict=False)
                )
                cut = tuple(_middle(each, height, width) for each in (*frames, truth))
                sample = Sample(item=cut[:2], targets={main.name: cut[2]})
            yield sample

    def first(self) -> Record:
        """The first pair."""
        return {"frames": tuple(read_image(file) for file in self.pairs[0][:2])}


def flow_pairs(path: Path) -> tuple[tuple[Path, Path, Path], ...]:
    """First frames, second frames and flows of a directory; none if it has no layout that is known.

    | Layout | Frames | Flow |
    |---|---|---|
    | pairs | `NAME_img1.png`, `NAME_img2.png` | `NAME_flow.flo` or `NAME_flow.png` |
    | KITTI 2015 | `image_2/NAME_10.png`, `image_2/NAME_11.png` | `flow_occ/NAME_10.png` |
    | Sintel | `clean/SCENE/frame_0001.png` and the next | `flow/SCENE/frame_0001.flo` |
    """
    found: list[tuple[Path, Path, Path]] = []
    for flow in sorted((*path.glob("*_flow.flo"), *path.glob("*_flow.png"))):
        stem = flow.name[: -len("_flow.flo")]
        frames = [next(iter(sorted(path.glob(f"{stem}_img{n}.*"))), path / f"{stem}_img{n}.png") for n in (1, 2)]
        found.append((frames[0], frames[1], flow))
    for flow in sorted(path.glob("flow_occ/*_10.png")):
        first = path / "image_2" / flow.name
        found.append((first, first.with_name(flow.name.replace("_10.png", "_11.png")), flow))
    for flow in sorted(path.glob("flow/*/frame_*.flo")):
        first = path / "clean" / flow.parent.name / f"{flow.stem}.png"
        found.append((first, first.with_name(f"frame_{int(flow.stem[6:]) + 1:04}.png"), flow))
    return tuple(found)


def read_flow(path: Path) -> Array:
    """A flow (H, W, 2) from a .flo file, or from KITTI's 16-bit PNG; NaN where it is not known. Raises DatasetError."""
    if path.suffix.lower() == ".flo":
        content = path.read_bytes()
        width, height = np.frombuffer(content[4:12], "<i4") if len(content) >= 12 else (0, 0)
        if content[:4] != FLO_MAGIC or len(content) != 12 + 8 * int(width) * int(height):
            raise DatasetError(f"{path}: expected a .flo file, whose size is in its header; copy it again")
        flow = np.frombuffer(content, "<f4", offset=12).reshape(height, width, 2)
        return np.where(np.abs(flow) < 1e9, flow, np.float32(np.nan))  # Middlebury: larger ones are unknown
    return _kitti(path)


def _kitti(path: Path) -> Array:
    """u = (R - 2^15) / 64, v = (G - 2^15) / 64, valid where B is not 0. Pillow reads 16-bit PNG in 8 bits only."""
    try:
        import png
    except ImportError as error:
        raise UnavailableError(f"{path}: needs pypng ({error}); pip install 'perceiver-deploy[data]'") from error
    try:
        width, height, rows, form = png.Reader(filename=str(path)).read()
        levels = np.vstack([np.asarray(row, np.float32) for row in rows])
    except (png.Error, zlib.error) as error:
        raise DatasetError(f"{path}: expected a PNG file: {error}; copy it again") from error
    if (form["bitdepth"], form["planes"]) != (16, 3):
        raise DatasetError(f"{path}: expected 3 channels of 16 bits, got {form['planes']} of {form['bitdepth']}")
    levels = levels.reshape(height, width, 3)
    flow: Array = (levels[:, :, :2] - 2**15) / np.float32(64)
    flow[levels[:, :, 2] == 0] = np.nan
    return flow


def _middle(array: Array, height: int, width: int) -> Array:
    rows, columns = array.shape[:2]
    if rows < height or columns < width:
        raise DatasetError(
            f"expected frames of at least {[height, width]}, which the model takes, got {[rows, columns]}"
        )
    top, left = (rows - height) // 2, (columns - width) // 2
    return array[top : top + height, left : left + width]


def _channels(interface: Interface) -> int:
    """Channels of what the model takes: grey for one."""
    images = [spec for spec in interface.inputs if spec.rank == 4 and spec.dtype == "float32"]
    return 1 if images and images[0].shape[1] == 1 else 3
