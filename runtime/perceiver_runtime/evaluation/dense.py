"""Metrics of dense outputs, accumulated batch by batch: tokens, optical flow, reconstructions."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from perceiver_runtime.errors import DatasetError
from perceiver_runtime.evaluation.metrics import require_finite
from perceiver_runtime.tensors import Array

OUTLIER_PIXELS, OUTLIER_SHARE = 3.0, 0.05
"""KITTI 2015: a flow vector is an outlier if its error is more than 3 pixels and 5% of the true length."""


@dataclass(frozen=True)
class TokenMetrics:
    """Over the scored tokens: the share predicted right, and the mean negative log2 probability of the right one."""

    samples: int
    tokens: int
    accuracy: float
    bits_per_byte: float


@dataclass(frozen=True)
class FlowMetrics:
    """Over the valid pixels: mean end-point error in pixels, and the share of outliers (Fl-all of KITTI 2015)."""

    samples: int
    pixels: int
    epe: float
    fl_all: float


@dataclass(frozen=True)
class ReconstructionMetrics:
    """Peak signal-to-noise ratio in dB over all values; `peak` is the range of the targets. None for an error of 0."""

    samples: int
    psnr: float | None
    peak: float


class Tokens:
    """Scores logits (N, L, vocabulary) against ids (N, L); negative ids are not scored."""

    def __init__(self) -> None:
        self._samples = self._tokens = self._hits = 0
        self._bits = 0.0

    def add(self, logits: Array, targets: Array) -> None:
        """Count a batch. Raises DatasetError if shapes do not fit, CheckError for NaN or infinity."""
        _require(logits.ndim == 3 and logits.shape[:2] == targets.shape, logits, targets)
        scored = targets >= 0
        rows, ids = logits[scored].astype(np.float64), targets[scored]
        require_finite(rows)
        self._samples += len(targets)
        self._tokens += len(ids)
        if len(ids):
            self._hits += int((rows.argmax(axis=1) == ids).sum())
            peak = rows.max(axis=1)
            total = np.log(np.exp(rows - peak[:, None]).sum(axis=1)) + peak
            self._bits += float((total - rows[np.arange(len(ids)), ids]).sum()) / math.log(2)

    def result(self) -> TokenMetrics:
        """The scores. Raises DatasetError where no token was scored."""
        if not self._tokens:
            raise DatasetError("metrics: expected at least one scored token, whose target is not negative, got none")
        share = self._hits / self._tokens
        return TokenMetrics(self._samples, self._tokens, share, self._bits / self._tokens)


class Flow:
    """Scores flows (N, H, W, 2) against true ones; pixels whose truth is NaN or infinite are not valid."""

    def __init__(self) -> None:
        self._samples = self._pixels = self._outliers = 0
        self._error = 0.0

    def add(self, flow: Array, targets: Array) -> None:
        """Count a batch. Raises DatasetError if shapes do not fit, CheckError for NaN or infinity."""
        _require(flow.shape == targets.shape and flow.shape[-1] == 2, flow, targets)
        valid = np.isfinite(targets).all(axis=-1)
        got, truth = flow[valid].astype(np.float64), targets[valid].astype(np.float64)
        require_finite(got)
        error, length = np.hypot(*(got - truth).T), np.hypot(*truth.T)
        self._samples += len(targets)
        self._pixels += len(error)
        self._error += float(error.sum())
        self._outliers += int(((error > OUTLIER_PIXELS) & (error > OUTLIER_SHARE * length)).sum())

    def result(self) -> FlowMetrics:
        """The errors. Raises DatasetError without a valid pixel."""
        if not self._pixels:
            raise DatasetError("metrics: expected at least one pixel with a finite true flow, got none")
        return FlowMetrics(self._samples, self._pixels, self._error / self._pixels, self._outliers / self._pixels)


class Reconstruction:
    """Scores outputs against targets of the same shape."""

    def __init__(self) -> None:
        self._samples = self._count = 0
        self._squares = 0.0
        self._low, self._high = math.inf, -math.inf

    def add(self, made: Array, targets: Array) -> None:
        """Count a batch. Raises DatasetError if shapes do not fit, CheckError for NaN or infinity."""
        _require(made.shape == targets.shape and made.size > 0, made, targets)
        require_finite(made)
        self._samples += len(targets)
        self._count += targets.size
        self._squares += float(np.square(made.astype(np.float64) - targets).sum())
        self._low, self._high = min(self._low, float(targets.min())), max(self._high, float(targets.max()))

    def result(self) -> ReconstructionMetrics:
        """The ratio. Raises DatasetError without samples, or where all targets are one number."""
        peak = self._high - self._low
        if not peak > 0:
            raise DatasetError("metrics: expected targets of more than one value, got none")
        error = self._squares / self._count
        return ReconstructionMetrics(self._samples, 10 * math.log10(peak**2 / error) if error else None, peak)


def _require(fits: bool, made: Array, targets: Array) -> None:
    if not fits:
        raise DatasetError(f"metrics: outputs {made.shape} do not fit targets {targets.shape}")
