"""FP8 and INT4 through ModelOpt's own interpreter: here a stand-in, whose `modelopt` writes what the real one would."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from perceiver_deploy.api.verify import verify
from perceiver_exporters.engines import build
from perceiver_exporters.precision import require
from perceiver_exporters.precision.modelopt import PYTHON, _save
from perceiver_exporters.precision.record import PATH, load_record
from perceiver_exporters.targets.target import TARGETS
from perceiver_runtime.errors import CheckError, UnavailableError, UsageError

from .conftest import Bundle

STAND_IN = '''
import math, ml_dtypes, numpy as np, onnx
from onnx import TensorProto as T, helper, numpy_helper

def quantize(path, quantize_mode, calibration_data, calibration_eps, nodes_to_quantize, output_path, **options):
    """Weights as INT4 in blocks, or weights and activations as FP8, in Q/DQ form."""
    assert calibration_eps == ["cpu"]
    assert all(len(array) >= 64 for array in calibration_data.values())
    model = onnx.load(path)
    graph, made = model.graph, []
    stored = {t.name: t for t in graph.initializer}
    add = graph.initializer.append
    for node in graph.node:
        if node.name in nodes_to_quantize and (quantize_mode == "fp8" or node.op_type != "Conv"):
            weight = numpy_helper.to_array(stored[node.input[1]])
            name = node.name
            if quantize_mode == "fp8":
                scale = np.float32(max(np.abs(weight).max() / 448, 1e-9))
                add(numpy_helper.from_array(scale, f"{name}.ws"))
                add(_eight(f"{name}.w", weight / scale))
                add(numpy_helper.from_array(np.float32(0.05), f"{name}.as"))
                add(_eight(f"{name}.az", np.zeros(())))
                made += [
                    helper.make_node("DequantizeLinear", [f"{name}.w", f"{name}.ws"], [f"{name}.dw"], f"{name}.wd"),
                    helper.make_node(
                        "QuantizeLinear", [node.input[0], f"{name}.as", f"{name}.az"], [f"{name}.q"], f"{name}.aq"
                    ),
                    helper.make_node(
                        "DequantizeLinear", [f"{name}.q", f"{name}.as", f"{name}.az"], [f"{name}.d"], f"{name}.ad"
                    ),
                ]
                node.input[0] = f"{name}.d"
            else:
                weight = weight.T if node.op_type == "Gemm" else weight
                k, n = weight.shape
                block = math.gcd(k, options["block_size"])
                parts = weight.reshape(-1, block, weight.shape[1])
                scale = np.abs(parts).max(axis=1) / 7
                levels = np.clip(np.round(parts / scale[:, None]), -8, 7).reshape(weight.shape).astype(ml_dtypes.int4)
                add(numpy_helper.from_array(scale.astype(np.float32), f"{name}.s"))
                add(helper.make_tensor(f"{name}.w", T.INT4, weight.shape, levels.astype(np.int8).ravel().tolist()))
                blocks = {"axis": 0, "block_size": block, "name": f"{name}.wd"}
                read = [f"{name}.w", f"{name}.s"]
                made.append(helper.make_node("DequantizeLinear", read, [f"{name}.dw"], **blocks))
                if node.op_type == "Gemm":
                    for attribute in node.attribute:
                        if attribute.name == "transB":
                            attribute.i = 0
            node.input[1] = f"{name}.dw"
        made.append(node)
    nodes = [onnx.NodeProto.FromString(n.SerializeToString()) for n in made]
    del graph.node[:]
    graph.node.extend(nodes)
    if quantize_mode == "int4":
        model.opset_import[0].version = 21
    onnx.save(model, output_path)

def _eight(name, values):
    eight = np.asarray(values).astype(ml_dtypes.float8_e4m3fn)
    return helper.make_tensor(name, T.FLOAT8E4M3FN, eight.shape, eight.tobytes(), raw=True)
'''


def interpreter(folder: Path, code: str) -> Path:
    """This Python, with a `modelopt` of that code before all others."""
    package = folder / "modelopt" / "onnx"
    package.mkdir(parents=True)
    (folder / "modelopt" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "quantization.py").write_text(code)
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


@pytest.fixture
def modelopt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PYTHON, str(interpreter(tmp_path / "environment", STAND_IN)))


@pytest.mark.parametrize(("precision", "dtype"), [("fp8", ir.DataType.FLOAT8E4M3FN), ("int4", ir.DataType.INT4)])
@pytest.mark.usefixtures("modelopt")
def test_what_modelopt_makes_is_bundled_and_proven(precision: str, dtype: ir.DataType, bundle: Bundle) -> None:
    path, manifest = bundle(precision, target="rtx")
    assert manifest.precision == precision
    assert all(entry.weighted >= 0.9 for entry in load_record(path / PATH))
    for component in manifest.components:
        graph = ir.load(path / component.onnx).graph
        assert [v.name for v in graph.inputs] == [spec.name for spec in component.inputs]
        assert dtype in {value.const_value.dtype for value in graph.initializers.values() if value.const_value}
    assert {t.component for t in manifest.tolerances} == {*(c.name for c in manifest.components), "pipeline"}


@pytest.mark.parametrize("target", ["jetson-thor", "hopper"])
@pytest.mark.usefixtures("modelopt")
def test_an_fp8_bundle_goes_to_the_device_as_a_kit(target: str, bundle: Bundle, tmp_path: Path) -> None:
    path, _ = bundle("fp8", target=target)
    outcome = build(path, target, kit=tmp_path / "kit")
    assert outcome.preflight.verdict != "blocked"
    assert outcome.kit == tmp_path / "kit"


@pytest.mark.parametrize("precision", ["fp8", "int4"])
@pytest.mark.usefixtures("modelopt")
def test_tensorrt_takes_them(precision: str, bundle: Bundle) -> None:
    """REAL: TensorRT-RTX parses and builds the graphs; a product with INT4 weights computes in its input's type."""
    path, manifest = bundle(precision, target="rtx")
    engines = build(path, "rtx").engines
    assert [engine.component for engine in engines] == [entry.name for entry in manifest.components]
    computed = "fp32" if precision == "int4" else precision
    assert all(engine.products.get(computed, 0) > 0 for engine in engines)


@pytest.mark.usefixtures("modelopt")
def test_an_int4_bundle_verifies_here(bundle: Bundle) -> None:
    path, _ = bundle("int4", target="rtx")
    verification = verify(path)
    assert verification.parity.passed, [r for r in verification.parity.reports if not r.passed]


def test_without_an_interpreter_it_is_refused(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON, raising=False)
    with pytest.raises(UnavailableError, match=rf"fp8 and int4 need NVIDIA ModelOpt .*{PYTHON}"):
        bundle("fp8", target="hopper")
    monkeypatch.setenv(PYTHON, str(tmp_path / "none"))
    with pytest.raises(UnavailableError, match="expected an interpreter"):
        bundle("fp8", target="hopper")


def test_an_interpreter_without_modelopt_is_refused(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PYTHON, str(interpreter(tmp_path / "environment", "import not_installed_anywhere")))
    with pytest.raises(UnavailableError, match="can't run ModelOpt: ModuleNotFoundError"):
        bundle("int4", target="rtx")


def test_a_failure_of_modelopt_fails_the_export(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "def quantize(*_, **__): raise RuntimeError('no such kernel')"
    monkeypatch.setenv(PYTHON, str(interpreter(tmp_path / "environment", code)))
    with pytest.raises(CheckError, match=r"encoder: ModelOpt made no graph .*no such kernel"):
        bundle("fp8", target="rtx")
    assert not (tmp_path / "fp8").exists()


@pytest.mark.usefixtures("modelopt")
def test_a_graph_that_modelopt_left_alone_fails_the_proof(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import shutil\ndef quantize(path, output_path, **_): shutil.copyfile(path, output_path)"
    monkeypatch.setenv(PYTHON, str(interpreter(tmp_path / "idle", code)))
    with pytest.raises(CheckError, match=r"expected 90% .* in fp8, found 0\.0%"):
        bundle("fp8", target="rtx")


@pytest.mark.parametrize(
    ("precision", "target", "reason"),
    [
        ("fp8", "cpu", "no FP8 arithmetic"),
        ("fp8", "jetson-orin", "Orin has no FP8"),
        ("int4", "cpu", "memory bandwidth"),
        ("int4", "hopper", "opset 21"),
        ("int4", "cuda", "no INT4 weights"),
    ],
)
def test_targets_without_it_refuse_with_the_reason(precision: str, target: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        require(TARGETS, target, precision)


@pytest.mark.skipif(PYTHON not in os.environ, reason="needs NVIDIA ModelOpt in an environment of its own")
@pytest.mark.parametrize("precision", ["fp8", "int4"])
def test_the_real_modelopt(precision: str, bundle: Bundle) -> None:
    path, _ = bundle(precision, target="rtx")
    assert verify(path).parity.passed


def test_calibration_inputs_may_have_any_name(tmp_path: Path) -> None:
    """Also those of `numpy.savez`'s own parameters."""
    arrays = {"file": np.ones(2, np.float32), "allow_pickle": np.zeros((1, 3), np.int64)}
    _save(tmp_path / "feeds.npz", arrays)  # type: ignore[arg-type]
    with np.load(tmp_path / "feeds.npz", allow_pickle=False) as stored:
        assert set(stored.files) == set(arrays)
        assert all(np.array_equal(stored[name], array) for name, array in arrays.items())  # type: ignore[arg-type]
