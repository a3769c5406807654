"""Suppress what PyTorch's ONNX exporter and the graph passes print about every Perceiver."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

LOGGERS = ("torch.onnx", "torch.fx.experimental.symbolic_shapes", "onnxscript.optimizer", "onnx_ir.passes")
"""Parents of the loggers that report skipped operators, foldings and initializers, and unknown sizes."""
MESSAGES = ("# The axis name: .* will not be used", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
"""Warnings of torch.onnx on axes of equal size, and of torch.export on its own code."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ignore these warnings, and records of these loggers below CRITICAL, inside the block.

    Levels and filters are per process, not per thread, and torch.onnx.export has no switch for either
    (`verbose=False` covers its prints alone); so only what is listed here is affected.
    """
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for message in MESSAGES:
            warnings.filterwarnings("ignore", message)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
