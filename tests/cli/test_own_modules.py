"""Modules of the user's own on the command line and in Python: what runs, and what is refused without a trace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import perceiver_deploy as pd
from perceiver_deploy.cli.main import main
from perceiver_deploy.sources.code import load_function

FILE = """
import torch
from torch import nn

class Reader(nn.Module):
    def __init__(self, dtype=torch.float32):
        super().__init__()
        self.latents = nn.Parameter(torch.randn(4, 8))
        self.embed, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x, scale=1.0):
        tokens = self.embed(x)
        latents = self.latents.expand(x.shape[0], -1, -1)
        weights = (latents @ tokens.transpose(1, 2)).softmax(-1)
        return {"scores": self.head((weights @ tokens).mean(1)) * scale}

def make():
    torch.manual_seed(0)
    return Reader()

def with_example():
    return make(), {"x": torch.randn(8, 5, 6), "scale": 2.0}

def samples():
    for row in torch.randn(60, 5, 6, generator=torch.Generator().manual_seed(1)):
        yield {"x": row.numpy(), "scores": int(row.sum() > 0)}

def batches():
    return [{"x": torch.randn(6, 5, 6), "scores": torch.zeros(6, dtype=torch.int64)} for _ in range(10)]

def other():
    torch.manual_seed(1)
    return Reader()

def broken():
    raise KeyError("checkpoint")

def number():
    return 7

def half():
    return make().half()

def diverged():
    module = make()
    with torch.no_grad():
        module.head.bias[1] = float("nan")
    return module
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FILE)
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).standard_normal((8, 5, 6), np.float32))
    np.savez(tmp_path / "y.npz", y=np.zeros((8, 5, 6), np.float32))
    np.savez(tmp_path / "one.npz", x=np.zeros((1, 5, 6), np.float32))
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return int(ended.value.code or 0)


def test_one_command_exports_and_verifies(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", "mine.py:with_example", "-o", "bundle") == 0
    assert "passed" in capsys.readouterr().out
    module, example = load_function("mine.py:with_example").call()
    with pd.open_session("bundle") as session, torch.no_grad():
        got = session.run({"x": example["x"].numpy()})["scores"]
        np.testing.assert_allclose(got, module(**example)["scores"].numpy(), rtol=1e-5, atol=1e-6)
    assert run("bench", "bundle") == 2
    assert (
        f"code runs only where it is named; name it: --reference {folder}/mine.py"
        in capsys.readouterr().err.replace("\n", "")
    )
    assert run("bench", "bundle", "--reference", "mine.py:with_example", "--iterations", "2") == 0
    assert run("bisect", "bundle", "--reference", "mine.py:with_example") == 0
    capsys.readouterr()
    assert run("bisect", "bundle", "--reference", "mine.py:other") == 2
    assert "expected the weights of the bundle" in capsys.readouterr().err
    (folder / "mine.py").write_text(FILE + "\nprint('changed')\n")
    assert run("bisect", "bundle", "--reference", "mine.py:with_example") == 2
    said = capsys.readouterr()
    assert "expected the code that the bundle was made with" in said.err
    assert "changed" not in said.out


REFUSED: dict[str, tuple[tuple[str, ...], int, str]] = {
    "no example": (("mine.py:make",), 2, "expected an example of what Reader.forward takes"),
    "misnamed input": (("mine.py:make", "--inputs", "y.npz"), 2, "expected inputs that Reader.forward takes"),
    "no file of inputs": (("mine.py:make", "--inputs", "none.npz"), 3, "none.npz"),
    "no such function": (("mine.py:makes",), 2, "expected a function makes"),
    "no such file": (("yours.py:make",), 2, "expected a Python file"),
    "a function that raises": (("mine.py:broken",), 2, r"mine.py:broken: KeyError at .*mine.py:\d+: 'checkpoint'"),
    "no module": (("mine.py:number",), 2, "expected a torch.nn.Module.*got int"),
    "FP16 weights": (("mine.py:half", "--inputs", "x.npz"), 3, "expected weights in float32, got float16"),
    "NaN": (("mine.py:diverged", "--inputs", "x.npz"), 3, "head.bias has NaN"),
    "unknown input": (("mine.py:make", "--inputs", "x.npz", "--dynamic", "z=batch,5,6"), 2, "expected inputs of x"),
    "wrong rank": (
        ("mine.py:make", "--inputs", "x.npz", "--dynamic", "x=batch,5"),
        2,
        r"each dimension of \[8, 5, 6\]",
    ),
    "no shape": (("mine.py:make", "--inputs", "x.npz", "--dynamic", "x"), 2, "expected NAME=DIM"),
    "no submodule": (("mine.py:make", "--inputs", "x.npz", "--cut", "embedding"), 2, "did you mean embed"),
    "no range": (("mine.py:make", "--inputs", "x.npz", "--range", "length=1:2:3"), 2, "no such dynamic dimension"),
    "int8 without data": (("mine.py:make", "--inputs", "x.npz", "--precision", "int8"), 2, "no calibration data"),
    "options of others": (("fashion-perceiver", "--inputs", "x.npz"), 2, "goes with a module of your own"),
    "options of checkpoints": (("mine.py:with_example", "--image-size", "4x4"), 2, "goes with a checkpoint"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, code, words = REFUSED[case]
    before = sorted(folder.iterdir())
    assert run("export", *arguments, "-o", "bundle", "-q") == code
    said = capsys.readouterr().err
    assert re.search(words, said), said
    assert "Traceback" not in said
    assert sorted(p for p in folder.iterdir() if p.name != "__pycache__") == before


@pytest.mark.parametrize("records", ["samples", "batches"])
def test_data_give_the_example_and_the_ranges(records: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ("--data", f"mine.py:{records}")
    if records == "batches":  # made anew for each pass, so seed them
        (folder / "mine.py").write_text(FILE.replace("    return [{", "    torch.manual_seed(2)\n    return [{"))
    assert run("export", "mine.py:make", "-o", "bundle", "--precision", "int8", *data, "-q") == 0
    manifest = pd.load_bundle("bundle").manifest
    assert [str(spec) for spec in manifest.pipeline.inputs] == ["x: float32[batch, 5, 6]"]
    assert manifest.golden_origin.startswith(f"mine.py:{records} (7 samples")
    capsys.readouterr()
    assert run("evaluate", "bundle", "--reference", "mine.py:make") == 2
    assert "code runs only where it is named" in capsys.readouterr().err
    assert run("evaluate", "bundle", "--reference", "mine.py:make", *data) == 0
    assert "accuracy" in capsys.readouterr().out


def test_a_module_is_left_as_it_was(folder: Path) -> None:
    module = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)).train()
    module[1].eval()
    pd.export(module, "small", inputs={"input": torch.randn(4, 6)})
    assert [each.training for each in module.modules()] == [True, True, False, True]
    assert pd.verify("small").passed
    with pd.open_session("small") as session:
        assert session.manifest.source.name == "Sequential"
        assert session.manifest.golden_origin == "random values like the example's (seed 0)"


def test_a_blueprint_of_the_users_own_is_exported_as_it_is(folder: Path) -> None:
    from perceiver_deploy.sources.source import blueprint, resolve

    made: Any = blueprint(resolve("fashion-perceiver"))
    pd.export(made, "cut-by-hand")
    assert pd.load_bundle("cut-by-hand").manifest.source == made.source


def test_families_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    from perceiver_deploy.families import ALL, ENTRY_POINTS, with_installed

    def point(value: str) -> EntryPoint:
        return EntryPoint("theirs", value, ENTRY_POINTS)

    assert with_installed((), [point("perceiver_deploy.families.hybrid:HYBRID")]) == {"hybrid": ALL[0]}
    for value, words in (
        ("perceiver_deploy.families.hybrid:NONE", "AttributeError"),
        ("json:dumps", "expected a Family, got function"),
    ):
        with pytest.raises(pd.UsageError, match=words):
            with_installed(ALL, [point(value)])
