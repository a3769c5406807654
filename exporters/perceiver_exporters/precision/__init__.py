"""Precisions: graph rewrites, their emulation in PyTorch, and the table that pairs them."""

from perceiver_exporters.precision.precision import Graphs, Measured, Precision, Request
from perceiver_exporters.precision.precisions import PRECISIONS, require
from perceiver_exporters.reference import Feeds

__all__ = ["PRECISIONS", "Feeds", "Graphs", "Measured", "Precision", "Request", "require"]
