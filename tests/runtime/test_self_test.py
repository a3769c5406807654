"""A self-test finds what changed after the files were hashed, a check of outputs what overflowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_bundles
from tiny_bundles import Model

from perceiver_runtime import CheckError, open_session
from perceiver_runtime.bundle import Bundle
from perceiver_runtime.cli.main import main


def flip(patch: pytest.MonkeyPatch, weight: np.ndarray) -> None:
    """Memory in which the highest exponent bit of the first number of a weight flips after the file was hashed."""
    read, data = Bundle.read, weight.tobytes()

    def flipped(bundle: Bundle, *arguments: Any, **options: Any) -> bytes:
        content = read(bundle, *arguments, **options)
        place = content.find(data) + 3
        return content if place < 3 else content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]

    patch.setattr(Bundle, "read", flipped)


def test_a_flipped_bit_of_a_weight(bundle: Path, model: Model, tmp_path: Path) -> None:
    open_session(bundle, threads=1, self_test=True).close()
    inputs = tmp_path / "in.npz"
    np.savez(inputs, **tiny_bundles.feeds())  # type: ignore[arg-type]
    run = ["run", str(bundle), "--threads", "1", "--inputs", str(inputs), "-o", str(tmp_path / "out.npz")]
    with pytest.MonkeyPatch.context() as patch:
        flip(patch, model.part("encoder").weights["e"])
        open_session(bundle, threads=1).close()  # hashes alone don't see it
        with pytest.raises(CheckError, match=r"self-test: \w+: \w+: expected an error of at most 1e-05.*open it again"):
            open_session(bundle, threads=1, self_test=True)
        assert main([*run, "--self-test"]) == 1
    assert main([*run, "--self-test"]) == 0


def test_a_session_after_its_self_test_checks_feeds(bundle: Path) -> None:
    with open_session(bundle, threads=1, self_test=True) as session:
        assert session.check_finite


def test_results_that_are_not_finite(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Finite inputs whose sum of products leaves FP32."""
    feeds = tiny_bundles.feeds()
    feeds["queries"] = np.full_like(feeds["queries"], 1e30)
    with open_session(bundle, threads=1, check_finite=False, check_outputs=True) as session:
        assert session.run(tiny_bundles.feeds())
        feeds["keys"] = np.full_like(feeds["keys"], 1e30)
        with pytest.raises(CheckError, match=r"expected finite results, got \S+ in answers at \[0, \d+, \d+\]"):
            session.run(feeds)
    np.savez(tmp_path / "in.npz", **feeds)  # type: ignore[arg-type]
    run = ["run", str(bundle), "--inputs", str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.npz")]
    assert main([*run, "--no-check-finite"]) == 0
    assert main([*run, "--no-check-finite", "--check-outputs"]) == 1
    assert "expected finite results" in capsys.readouterr().err
