"""Known messages of the exporter are suppressed, and nothing else."""

from __future__ import annotations

import logging
import warnings

import pytest

from perceiver_exporters.ir.quiet import quiet


def test_only_known_messages_are_suppressed(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("onnx_ir.passes.somewhere")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("# The axis name: batch will not be used, since ...", stacklevel=1)
            warnings.warn("from the application", stacklevel=1)
            logger.warning("from a pass")
            logging.getLogger("onnx_ir").warning("from the library")
            logging.getLogger("application").warning("from the application")
        logger.warning("afterwards")
    assert [str(each.message) for each in warned] == ["from the application"]
    assert caplog.messages == ["from the library", "from the application", "afterwards"]
