"""Fixtures of all tests, and what coverage measures."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from perceiver_runtime.progress import LOGGER


class _Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@pytest.fixture
def progress() -> Iterator[list[str]]:
    """Lines of progress that the test's work reports."""
    handler, level = _Lines(), LOGGER.level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    yield handler.lines
    LOGGER.removeHandler(handler)
    LOGGER.setLevel(level)


def pytest_configure(config: pytest.Config) -> None:
    """Coverage pauses while torch traces a module, which calls no code of ours but forward(): else it takes 1.6x."""
    if config.getoption("cov_source", None):
        import torch

        torch.onnx.export = _untraced(torch.onnx.export)


def _untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def untraced(*arguments: Any, **options: Any) -> Any:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*arguments, **options)
        finally:
            sys.settrace(tracer)

    return untraced
