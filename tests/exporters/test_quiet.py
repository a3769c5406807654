"""Libraries are kept silent without a redirect of the process's streams."""

from __future__ import annotations

import logging
import warnings

import pytest

from perceiver_exporters.ir.quiet import quiet


def test_only_the_libraries_are_silent(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("torch.onnx.somewhere")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("from a library", stacklevel=1)
            logger.warning("from a library")
            logging.getLogger("application").warning("from the application")
            print("printed meanwhile")
        logger.warning("afterwards")
    assert warned == []
    assert caplog.messages == ["from the application", "afterwards"]
    assert capsys.readouterr().out == "printed meanwhile\n"
