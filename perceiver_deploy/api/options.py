"""Options of an export: one object for Python and for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from perceiver_deploy.checkpoints import LoadOptions
from perceiver_deploy.checkpoints.fields import PAIR, shown
from perceiver_deploy.checkpoints.loaded import option
from perceiver_deploy.data.draw import DataOptions
from perceiver_exporters.precision.options import DEFAULTS, QuantizationOptions
from perceiver_runtime.errors import UsageError
from perceiver_runtime.settings import PixelFormat
from perceiver_runtime.tensors import Range


@dataclass(frozen=True)
class ExportOptions(LoadOptions):
    """What a bundle is to be, and (as `LoadOptions`) how its source is read.

    Attributes:
        precision: fp32, fp16, bf16, int8, int8-dynamic, fp8 or int4; the target has to have it.
        target: Device family that the bundle is for, one of `perceiver_exporters.targets.target.TARGETS`.
        max_memory: Bytes that a session may need at the profile's OPT sizes; chooses the sizes of the chunks in which
            long inputs are read and long outputs made. None: the model's own chunks.
        max_batch: Largest batch. None: the model's own, and at most `EngineTarget.max_batch` for engines, which reserve
            memory for it.
        quantization: How integers are calibrated, and how many bits weights have.
        max_accuracy_drop: Points of accuracy that int8 or int8-dynamic may lose on the model's data set: the fewest
            layers stay in FP32 that keep the loss within it. None: no bound.
        data: Samples of the user's own for calibration, golden samples and evaluation: a path, `file.py:function`, an
            iterable of dicts, or a function that returns one (see docs/data.md). None: the model's own, if it has any.
        calibration_samples: Number of samples for the ranges of int8; None: 512, or as many as there are.
        golden_samples: Number of samples that are stored in the bundle; None: 8, or as many as there are.
        evaluation_samples: Number of samples that metrics are measured on; None: 2,000, or as many as there are.
        seed: Of the draw of the samples.
        fold_preprocessing: Height and width of frames of 8 bits that the bundle is to take: resize and normalisation of
            images become its first component. None: the bundle takes preprocessed images.
        pixel_format: Of these frames: `uint8` (batch, height, width, channels), or `nv12`.
    """

    precision: str = "fp32"
    target: str = "cpu"
    max_memory: int | None = None
    max_batch: int | None = None
    quantization: QuantizationOptions = DEFAULTS
    max_accuracy_drop: float | None = None
    data: Any = None
    calibration_samples: int | None = None
    golden_samples: int | None = None
    evaluation_samples: int | None = None
    seed: int = 0
    fold_preprocessing: tuple[int, int] | None = None
    pixel_format: PixelFormat | None = None

    @property
    def drawn(self) -> DataOptions:
        """Data, and how they are divided. Raises UsageError for numbers out of range, or without data."""
        chosen = DataOptions(
            self.data, self.calibration_samples, self.golden_samples, self.evaluation_samples, self.seed
        )
        if given := chosen.without_data:
            raise UsageError(f"{', '.join(given)}: goes with data of your own (--data); leave it out")
        return chosen

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fold_preprocessing is not None and not PAIR.holds(self.fold_preprocessing):
            got = shown(self.fold_preprocessing)
            raise UsageError(f"{option('fold_preprocessing')}: expected height and width, got {got}")
        if self.pixel_format not in (None, "uint8", "nv12"):
            raise UsageError(f"{option('pixel_format')}: expected uint8 or nv12, got {shown(self.pixel_format)}")
        if self.pixel_format is not None and self.fold_preprocessing is None:
            raise UsageError(f"{option('pixel_format')}: goes with {option('fold_preprocessing')}; leave it out")


class ExportSettings(TypedDict, total=False):
    """Fields of `ExportOptions`, as keyword arguments of `export` and `dry_run`."""

    image_size: tuple[int, int] | None
    revision: str | None
    cache_dir: Path | None
    local_files_only: bool
    inputs: Mapping[str, Any] | Path | None
    dynamic: Mapping[str, tuple[int | str, ...]]
    cut: tuple[str, ...]
    precision: str
    target: str
    max_memory: int | None
    max_batch: int | None
    ranges: Mapping[str, Range]
    quantization: QuantizationOptions
    max_accuracy_drop: float | None
    data: Any
    calibration_samples: int | None
    golden_samples: int | None
    evaluation_samples: int | None
    seed: int
    fold_preprocessing: tuple[int, int] | None
    pixel_format: PixelFormat | None


def export_options(options: LoadOptions, settings: ExportSettings) -> ExportOptions:
    """The options, with `settings` in place of the fields that they name."""
    return ExportOptions(**{**vars(options), **settings})
