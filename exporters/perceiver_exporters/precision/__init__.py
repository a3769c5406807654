"""Precisions: graph rewrites, their emulation in PyTorch, and the table that pairs them."""

from perceiver_exporters.precision.precision import Feeds, Precision, Request
from perceiver_exporters.precision.table import PRECISIONS

__all__ = ["PRECISIONS", "Feeds", "Precision", "Request"]
