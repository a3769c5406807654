"""Calibration: the ranges of a model's activations on real inputs, collected in constant memory."""

from perceiver_exporters.precision.calibration.methods import METHODS
from perceiver_exporters.precision.calibration.statistics import Observed, Statistics

__all__ = ["METHODS", "Observed", "Statistics"]
