"""Suppress what PyTorch's exporters and the graph passes print about every Perceiver, and about a failed trace."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator

LOGGERS = ("torch.onnx", "torch.fx.experimental.symbolic_shapes", "onnxscript.optimizer", "onnx_ir.passes")
"""Parents of the loggers that report skipped operators, foldings and initializers, and unknown sizes."""
MESSAGES = ("# The axis name: .* will not be used", r"`isinstance\(treespec, LeafSpec\)` is deprecated")
"""Warnings of torch.onnx on axes of equal size, and of torch.export on its own code."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ignore, inside the block, these warnings, these loggers below CRITICAL, and the graph of a failed trace.

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
            with _without_partial_graphs():
                yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextlib.contextmanager
def _without_partial_graphs() -> Iterator[None]:
    """Hold stderr back until the end: torch.export prints the graph of its exception; the module may print, too."""
    said, graphs = io.StringIO(), set[str]()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except BaseException as error:
        cause: BaseException | None = error
        while cause is not None:
            graphs.add(f"{getattr(cause, 'partial_fx_graph', '')}\n")
            cause = cause.__cause__ or cause.__context__
        raise
    finally:
        text = said.getvalue()
        for graph in graphs - {"\n"}:
            text = text.replace(graph, "")
        sys.stderr.write(text)
