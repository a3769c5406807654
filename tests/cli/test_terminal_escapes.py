"""Names in bundles and paths reach no terminal as control characters, whatever command prints them."""

from __future__ import annotations

import ast
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_bundles

import perceiver_deploy.cli
from perceiver_deploy.cli import main as program
from perceiver_runtime.cli import main as device

ESCAPE = "\x1b[2K\x07"
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
RUN = {
    "inspect": [],
    "verify": [],
    "bench": ["--iterations", "1", "--warmup", "0"],
    "run": ["--inputs", "feeds.npz", "-o", f"out{ESCAPE}.npz"],
    "predict": [f"photo{ESCAPE}.npy"],
    "evaluate": ["--data", "feeds.npz"],
    "build": ["--target", ESCAPE],
    "layers": ["-o", f"layers{ESCAPE}"],
    "selftest": ["-o", f"report{ESCAPE}.zip", "--iterations", "1"],
    "sign": ["--key", f"key{ESCAPE}.pem"],
}
EXPORT = {
    "inspect": [],
    "verify": [],
    "bisect": [],
    "growth": [],
    "evaluate": [],
    "check": ["--target", "jetson-orin"],
    "build": ["--target", "jetson-orin"],
    "bench": ["--iterations", "1", "--against", "none"],
    "report": ["-o", f"page{ESCAPE}.html", "--iterations", "1"],
    "trtexec": [],
    "sign": ["--key", f"key{ESCAPE}.pem"],
}


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that runs, with control characters in its path and in every text that may have them."""
    folder = tmp_path_factory.mktemp("hostile")
    path = tiny_bundles.write(folder / f"b{ESCAPE}", tiny_bundles.full_model(), tiny_bundles.feeds())

    def spoil(m):
        m["source"].update(name=f"tiny{ESCAPE}", family=f"f{ESCAPE}", config={f"c{ESCAPE}": ESCAPE})
        m.update(golden_origin=ESCAPE, labels=[ESCAPE, "b"], tools={f"onnx{ESCAPE}": ESCAPE})
        m["profiles"][0].update(name=f"p{ESCAPE}")
        for tolerance in m["tolerances"]:
            tolerance.update(provenance=ESCAPE, rel_l2=0.0)

    tiny_bundles.change(path, spoil)
    np.savez(folder / "feeds.npz", **tiny_bundles.feeds())  # type: ignore[arg-type]
    return path


@pytest.mark.parametrize("form", [(), ("--markdown",)])
@pytest.mark.parametrize("name", RUN)
def test_perceiver_run(hostile, name, form, tmp_path, monkeypatch, capfd):
    shutil.copy(hostile.parent / "feeds.npz", tmp_path)
    monkeypatch.chdir(tmp_path)
    device.main([name, str(hostile), *RUN[name], *form])
    _check(capfd)


@pytest.mark.parametrize("name", EXPORT)
def test_perceiver_export(hostile, name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        program.main([name, str(hostile), *EXPORT[name]])
    _check(capfd)


def test_unknown_words(capfd):
    assert device.main([ESCAPE]) == 2
    assert device.main(["inspect", "b", f"--{ESCAPE}"]) == 2
    for words in ([ESCAPE], ["inspect", "b", f"--{ESCAPE}"], ["export", ESCAPE, "-o", ESCAPE]):
        with pytest.raises(SystemExit):
            program.main(words)
    _check(capfd)


def _check(capfd):
    captured = capfd.readouterr()
    assert captured.out + captured.err
    assert not CONTROL.search(captured.out + captured.err)
    assert "defect" not in captured.err, captured.err


def test_commands_print_by_one_function():
    """`output.echo` escapes; `click.echo` does not."""
    for path in Path(perceiver_deploy.cli.__path__[0]).glob("*.py"):
        calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Attribute) and n.attr == "echo"]
        assert not calls or path.name == "output.py", path
