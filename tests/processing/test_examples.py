"""The examples run on small bundles, write what they say, and tell random weights from trained ones."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from models.oracle import REDUCED, Case, saved
from PIL import Image

from perceiver_runtime.execution.session import Session

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(autouse=True)
def _beside_each_other(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An example finds the modules that it shares with the others beside it, as it does when it is run."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield
    for name in ("bundles", "small"):
        sys.modules.pop(name, None)


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_fill_mask(text_session: Session, capsys: pytest.CaptureFixture[str]) -> None:
    example("fill_mask").main(["--bundle", str(text_session.bundle.path), "green trees", "ee"])
    printed = capsys.readouterr().out
    assert "RANDOM weights" in printed
    assert "filled: 'ee'" in printed


def test_classify_image(classifier_session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(np.full((20, 30, 3), [0, 250, 0], np.uint8)).save(tmp_path / "green.png")
    example("classify_image").main(
        ["--bundle", str(classifier_session.bundle.path), str(tmp_path / "green.png"), "-k", "2"]
    )
    printed = capsys.readouterr().out
    assert "RANDOM weights" in printed
    assert printed.splitlines()[1].endswith("  1")  # its green channel is the largest


def test_optical_flow(flow_session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, level in (("first", 40), ("second", 200)):
        Image.fromarray(np.full((20, 30, 3), level, np.uint8)).save(tmp_path / f"{name}.png")
    frames = [str(tmp_path / f"{name}.png") for name in ("first", "second")]
    out = tmp_path / "flow.png"
    example("optical_flow").main(
        ["--bundle", str(flow_session.bundle.path), "--frames", *frames, "--overlap", "5", "-o", str(out)]
    )
    assert "RANDOM weights" in capsys.readouterr().out
    assert Image.open(out).size == (30, 20)


def test_optical_flow_of_the_stereo_pair(
    flow_session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    out = tmp_path / "flow.png"
    example("optical_flow").main(["--bundle", str(flow_session.bundle.path), "--overlap", "1", "-o", str(out)])
    assert "end-point error" in capsys.readouterr().out
    assert Image.open(out).size == (741, 500)
    # everything moves leftwards, which the wheel shows between cyan and blue
    red, green, blue = np.asarray(Image.open(tmp_path / "flow-truth.png")).reshape(-1, 3).mean(0)
    assert red < green - 20 < blue


def test_reconstruct_video(autoencoder_session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("reconstruct_video").main(["--bundle", str(autoencoder_session.bundle.path), "-o", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "RANDOM weights" in printed
    assert "PSNR 100.0 dB" in printed
    assert (tmp_path / "original.wav").read_bytes() == (tmp_path / "reconstruction.wav").read_bytes()
    assert Image.open(tmp_path / "reconstruction.gif").size == (8, 8)


RANDOM = {
    "fill_mask": (["green trees", "ee"], "filled: ", ()),
    "classify_image": (["-k", "2"], "%", ()),
    "optical_flow": (["-o", "{}/flow.png"], "end-point error", ("flow.png", "flow-truth.png")),
    "reconstruct_video": (["-o", "{}"], "PSNR", ("reconstruction.gif", "reconstruction.wav")),
}


@pytest.mark.parametrize("name", RANDOM)
def test_without_a_model_a_small_one_of_random_weights_is_exported(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("skimage")
    arguments, says, files = RANDOM[name]
    example(name).main([argument.format(tmp_path) for argument in arguments])
    printed = capsys.readouterr().out
    assert printed.startswith("RANDOM weights")
    assert says in printed
    assert all((tmp_path / file).stat().st_size for file in files)


def test_a_checkpoint_is_exported_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = {**REDUCED, "vocab_size": 262, "max_position_embeddings": 64}
    case = Case("PerceiverForMaskedLM", config, lambda: {})
    with torch.no_grad():
        directory = saved(case.oracle(), tmp_path / "model")
    example("fill_mask").main(["--checkpoint", str(directory), "green trees", "ee"])
    printed = capsys.readouterr().out
    assert "RANDOM" not in printed
    assert "filled: " in printed


def test_a_bundle_needs_no_torch(text_session: Session) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; sys.path.insert(0, sys.argv[1]); import fill_mask; "
        "fill_mask.main(['--bundle', sys.argv[2], 'green trees', 'ee'])"
    )
    command = [sys.executable, "-c", code, str(EXAMPLES), str(text_session.bundle.path)]
    assert "filled: 'ee'" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
