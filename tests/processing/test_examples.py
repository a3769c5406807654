"""The examples run on small bundles, write what they say, and tell random weights from trained ones."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from perceiver_runtime.session import Session

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fill_mask(text_session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    example("fill_mask").main([str(text_session.bundle.path), "green trees", "ee"])
    printed = capsys.readouterr().out
    assert "RANDOM WEIGHTS" in printed
    assert "filled: 'ee'" in printed


def test_classify_image(classifier_session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.full((20, 30, 3), [0, 250, 0], np.uint8)).save(tmp_path / "green.png")
    example("classify_image").main([str(classifier_session.bundle.path), str(tmp_path / "green.png"), "-k", "2"])
    printed = capsys.readouterr().out
    assert "RANDOM WEIGHTS" in printed
    assert printed.splitlines()[1].endswith("  1")  # its green channel is the largest


def test_optical_flow(flow_session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, level in (("first", 40), ("second", 200)):
        Image.fromarray(np.full((20, 30, 3), level, np.uint8)).save(tmp_path / f"{name}.png")
    frames = [str(tmp_path / f"{name}.png") for name in ("first", "second")]
    out = tmp_path / "flow.png"
    example("optical_flow").main([str(flow_session.bundle.path), "--frames", *frames, "--overlap", "5", "-o", str(out)])
    assert "RANDOM WEIGHTS" in capsys.readouterr().out
    assert Image.open(out).size == (30, 20)


def test_optical_flow_of_the_stereo_pair(
    flow_session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    out = tmp_path / "flow.png"
    example("optical_flow").main([str(flow_session.bundle.path), "--overlap", "1", "-o", str(out)])
    assert "end-point error" in capsys.readouterr().out
    assert Image.open(out).size == (741, 500)


def test_reconstruct_video(autoencoder_session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("reconstruct_video").main([str(autoencoder_session.bundle.path), "-o", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "RANDOM WEIGHTS" in printed
    assert "PSNR 100.0 dB" in printed
    assert (tmp_path / "original.wav").read_bytes() == (tmp_path / "reconstruction.wav").read_bytes()
    assert Image.open(tmp_path / "reconstruction.gif").size == (8, 8)
