"""`perceiver-run`: results on stdout, all else on stderr, documented exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_bundles

from perceiver_runtime.cli.main import main

NAMED = {"bundle", "model", "precision", "target", "machine", "versions", "date"}
"""What every result for programs names."""


def test_info(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(bundle)]) == 0
    out = capsys.readouterr().out
    for part in (
        "tiny (test, random weights), fp32 for cpu",
        "mask: float32[batch, 5] = 1 if not given",
        "keys 1 to 32",
    ):
        assert part in out
    assert main(["inspect", str(bundle), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["source"]["name"] == "tiny"
    assert shown["conditions"].keys() >= NAMED


def test_verify(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle), "--threads", "1"]) == 0
    captured = capsys.readouterr()
    assert "\n1 golden sample," in captured.out
    assert ": passed\ndigest " in captured.out
    assert "golden samples" in captured.err
    assert main(["verify", str(bundle), "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert {"pipeline", "encoder", "block"} <= {r["component"] for r in records}
    assert all(r["passed"] for r in records)
    assert all({name for name, value in r["conditions"].items() if value} >= NAMED for r in records)


def test_failed_verification_exits_1(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_bundles.change(copy, lambda m: [t.update(rel_l2=0.0) for t in m["tolerances"]])
    assert main(["verify", str(copy)]) == 1
    assert "FAILED" in capsys.readouterr().out


def test_bench(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", str(bundle), "--iterations", "5", "--warmup", "1", "--batch", "2", "--threads", "1"]
    assert main(arguments) == 0
    assert "overhead" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert len(report["total"]["samples"]) == 5
    assert report["batch"] == 2


def test_run(bundle: Path, model: tiny_bundles.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    feeds = tiny_bundles.feeds(2)
    np.save(tmp_path / "x.npy", feeds["x"])
    np.savez(tmp_path / "rest.npz", keys=feeds["keys"], queries=feeds["queries"])
    arguments = ["run", str(bundle), "--input", f"x={tmp_path / 'x.npy'}", "--inputs", str(tmp_path / "rest.npz")]
    out = tmp_path / "out.npz"
    assert main([*arguments, "-o", str(out)]) == 0
    assert "[2, 10, 5]" in capsys.readouterr().out
    expected = tiny_bundles.reference(model, feeds)
    with np.load(out) as results:
        assert set(results) == {"logits", "answers", "scaled_keys"}
        for name in results:
            np.testing.assert_allclose(results[name], expected[name], rtol=1e-4, atol=1e-5)
    assert main([*arguments, "-o", str(out), "--outputs", "logits", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["runs_on"]["backend"] == "onnxruntime"
    assert (record["name"], record["dtype"], record["shape"]) == ("logits", "float32", [2, 5, 2])


def test_inputs_that_are_not_finite_are_run_only_if_asked_for(bundle: Path, tmp_path: Path) -> None:
    feeds = tiny_bundles.feeds()
    feeds["x"][0, 0, 0] = np.nan
    np.savez(tmp_path / "feeds.npz", **feeds)  # type: ignore[arg-type]
    run = ["run", str(bundle), "--inputs", str(tmp_path / "feeds.npz"), "-o", str(tmp_path / "o.npz")]
    assert main(run) == 3
    assert main([*run, "--no-check-finite"]) == 0


def test_exit_codes(bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(tmp_path / "x.npy", np.zeros((1, 5, 4)))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    x, out = f"x={tmp_path / 'x.npy'}", ["-o", str(tmp_path / "o.npz")]
    run = ["run", str(bundle)]
    cases = {
        3: [
            ["inspect", str(tmp_path / "none")],
            [*run, *out, "--input", x],
            [*run, *out, "--input", f"x={tmp_path / 'none.npy'}"],
            [*run, *out, "--input", f"x={tmp_path / 'objects.npy'}"],
            [*run, *out, "--inputs", str(tmp_path / "x.npy")],
        ],
        2: [
            ["verify", str(bundle), "--backend", "none"],
            ["verify", str(bundle), "--threads", "0"],
            ["bench", str(bundle), "--iterations", "0"],
            [*run, *out, "--input", "x"],
            [*run, *out, "--input", x, "--input", x],
            [*run, *out, "--outputs", "z"],
        ],
    }
    for code, commands in cases.items():
        for command in commands:
            assert main(command) == code, command
            captured = capsys.readouterr()
            assert not captured.out
            assert "perceiver-run: " in captured.err
            assert "Traceback" not in captured.err


def test_unwritable_output(bundle: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "feeds.npz", **tiny_bundles.feeds())  # type: ignore[arg-type]
    out = str(tmp_path / "nowhere" / "o.npz")
    assert main(["run", str(bundle), "--inputs", str(tmp_path / "feeds.npz"), "-o", out]) == 2


@pytest.mark.parametrize("arguments", [[], ["zzz"], ["inspect"], ["run", "b"], ["bench", "b", "--iterations", "many"]])
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("usage: perceiver-run")


def test_missing_backend_exits_4(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "perceiver_runtime.backends.onnxruntime", raising=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert main(["verify", str(bundle)]) == 4
    error = capsys.readouterr().err
    assert "pip install 'perceiver-runtime[cpu]'" in error
    assert "'perceiver-runtime[gpu]'" in error
    assert main(["inspect", str(bundle)]) == 0


def test_module_runs_without_heavy_imports(bundle: Path) -> None:
    """A whole verification, in an environment that has them all, imports none of them."""
    heavy = "{'torch', 'onnx', 'safetensors', 'onnxscript', 'transformers', 'click', 'rich'}"
    code = (
        "import sys; from perceiver_runtime.cli.main import main; "
        f"code = main(['verify', {str(bundle)!r}]); print({heavy} & set(sys.modules)); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("set()\n")
    module = [sys.executable, "-m", "perceiver_runtime", "inspect", str(bundle)]
    assert subprocess.run(module, capture_output=True, check=False).returncode == 0
