"""Each fault that would break a build or a run on a board is caught before any build, with its check and remedy."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tiny_bundles
from engines import seeded
from engines.seeded import node
from engines.simulation.jetson import simulated_jetson
from onnx import TensorProto

from perceiver_deploy.cli.main import main
from perceiver_exporters import engines
from perceiver_exporters.preflight import check
from perceiver_exporters.preflight.checks import CHECKS
from perceiver_exporters.preflight.graph_checks import NO_IMPORTER
from perceiver_exporters.preflight.memory import live_bytes
from perceiver_runtime.errors import CheckError, UsageError
from perceiver_runtime.tensorrt.api import load_tensorrt
from perceiver_runtime.tensorrt.sidecar import read_sidecar, sidecar_path, write_sidecar

F16, F32, F8 = TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.FLOAT8E4M3FN
SCALE = np.float32(0.1)
ONES = np.ones((32, 32), np.float32)


def sound(directory: Path, **options: Any) -> Path:
    return seeded.bundle(directory, [node("MatMul", "x w", "y")], {"w": ONES}, **options)


def dft(directory: Path) -> Path:
    nodes = [
        node("Unsqueeze", "x last", "complex"),
        node("DFT", "complex - axis", "spectrum"),
        node("ReduceSum", "spectrum last", "y", keepdims=0),
    ]
    return seeded.bundle(directory, nodes, {"last": np.array([3]), "axis": np.array(1)})


def quantised(directory: Path, zero: Any, bias: bool = False) -> Path:
    nodes = [
        node("QuantizeLinear", "x s z", "q"),
        node("DequantizeLinear", "q s z", "d"),
        node("MatMul", "d w", "m"),
        node("DequantizeLinear", "b s", "db"),
        node("Add", "m db", "y"),
    ]
    weights = {"s": SCALE, "z": zero, "w": ONES, "b": np.ones(32, np.int32 if bias else np.int8)}
    return seeded.bundle(directory, nodes, weights)


def attention(directory: Path, opset: int = 23) -> Path:
    return seeded.bundle(directory, seeded.attention(), opset=opset)


def fp8(directory: Path) -> Path:
    nodes = [
        node("Cast", "x", "f8", to=F8),
        node("Cast", "f8", "y", to=F32),
    ]
    return seeded.bundle(directory, nodes)


def many_keys(directory: Path, keys: int, kind: int) -> Path:
    nodes = [
        node("Cast", "x", "typed", to=kind),
        node("MatMul", "typed wide", "scores"),
        node("Softmax", "scores", "weights", axis=-1),
        node("ReduceMax", "weights last", "peak", keepdims=1),
        node("Cast", "peak", "back", to=F32),
        node("Mul", "x back", "y"),
    ]
    wide = np.zeros((32, keys), np.float16 if kind == F16 else np.float32)
    return seeded.bundle(directory, nodes, {"wide": wide, "last": np.array([2])})


def huge(directory: Path) -> Path:
    def widen(manifest: dict[str, Any]) -> None:
        manifest["profiles"][0]["dimensions"]["batch"].update(max=20_000_000)

    return sound(directory, edit=widen)


def without_profile(directory: Path) -> Path:
    return sound(directory, edit=lambda manifest: manifest.update(profiles=[]))


def axis_without_range(directory: Path) -> Path:
    def rename(manifest: dict[str, Any]) -> None:
        for tensor in (*manifest["components"][0]["inputs"], *manifest["pipeline"]["inputs"]):
            tensor["shape"][1] = "tokens"

    return sound(directory, edit=rename)


def with_engine(directory: Path, **changes: Any) -> Path:
    """A bundle whose engines for the target are another machine's."""
    path = simulated_jetson().build(sound(directory))
    place = path / sidecar_path("jetson-orin", "net")
    write_sidecar(place, dataclasses.replace(read_sidecar(place), **changes))
    return tiny_bundles.rehash(path, sidecar_path("jetson-orin", "net"))


@dataclasses.dataclass(frozen=True)
class Fault:
    name: str
    make: Callable[[Path], Path]
    target: str
    check: str
    verdict: str
    message: str
    remedy: str


FAULTS = (
    Fault("DFT", dft, "jetson-orin", "PF001", "blocked", "no importer for DFT", "product with constant matrices"),
    Fault(
        "UINT8 zero point",
        lambda d: quantised(d, np.uint8(128)),
        "rtx",
        "PF002",
        "blocked",
        "asymmetric quantisation",
        "export int8 for this target",
    ),
    Fault(
        "INT32 bias",
        lambda d: quantised(d, np.int8(0), bias=True),
        "rtx",
        "PF003",
        "blocked",
        "quantised to INT32",
        "leaves biases in floating point",
    ),
    Fault("missing profile", without_profile, "rtx", "PF004", "blocked", "no profile, but batch", "export again"),
    Fault("axis without profile", axis_without_range, "rtx", "PF005", "blocked", "axis tokens", "add the axis"),
    Fault("FP32 attention", attention, "rtx", "PF006", "risky", "1 Attention operators in FP32", "export fp16"),
    Fault("FP8 on Orin", fp8, "jetson-orin", "PF007", "blocked", "fp8; jetson-orin computes in", "a precision of"),
    Fault(
        "65,536 keys",
        lambda d: many_keys(d, 65_536, F16),
        "jetson-orin",
        "PF008",
        "blocked",
        "65,536 keys in an FP16 softmax",
        "keep the softmax in FP32",
    ),
    Fault("opset 23 for JetPack 6", attention, "jetson-orin", "PF009", "blocked", "opset 23", "at opset 20"),
    Fault("more memory", huge, "jetson-orin", "PF010", "blocked", "too much for Orin Nano", "smaller chunks"),
    Fault(
        "wrong SM",
        lambda d: with_engine(d, compute_capabilities=("9.0",)),
        "jetson-orin",
        "PF011",
        "blocked",
        "engine built for 9.0; the target has 8.7",
        "perceiver-run build",
    ),
    Fault(
        "wrong TensorRT major",
        lambda d: with_engine(d, tensorrt="11.4.0"),
        "jetson-orin",
        "PF012",
        "blocked",
        "engine of tensorrt 11.4.0",
        "perceiver-run build",
    ),
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_seeded_fault_is_caught(fault: Fault, tmp_path: Path) -> None:
    report = check(fault.make(tmp_path / "bundle"), fault.target)
    found = [finding for finding in report.findings if finding.check == fault.check]
    assert len(found) == 1, report.findings
    assert found[0].verdict == fault.verdict
    assert fault.message in found[0].message
    assert fault.remedy in found[0].remedy
    assert report.verdict in ("blocked", fault.verdict)


def content(directory: Path) -> dict[str, bytes]:
    return {p.relative_to(directory).as_posix(): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_nothing_is_built_from_a_blocked_bundle(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of another machine don't stand in the way of a build, which replaces them, and a risk is not a block."""
    path = fault.make(tmp_path / "bundle")
    before, started = content(tmp_path), []
    monkeypatch.setattr(engines, "_builder", lambda *_: lambda path, *_: started.append(path) or ())
    if fault.verdict == "blocked" and fault.check not in engines.STALE_ENGINES:
        with pytest.raises(CheckError, match=f"{fault.check} .*{fault.remedy}"):
            engines.build(path, fault.target)
        assert started == []
    else:
        engines.build(path, fault.target)
        assert started == [path]
    assert content(tmp_path) == before


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_command_names_check_and_remedy(fault: Fault, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", str(fault.make(tmp_path / "bundle")), "--target", fault.target, "--json"])
    report = json.loads(capsys.readouterr().out)
    assert ended.value.code == (1 if report["verdict"] == "blocked" else 0)
    assert [(f["verdict"], fault.remedy in f["remedy"]) for f in report["findings"] if f["check"] == fault.check] == [
        (fault.verdict, True)
    ]


def test_the_twelve_faults_have_a_check_each() -> None:
    assert [fault.check for fault in FAULTS] == [f"PF{n:03}" for n in range(1, 13)]


@pytest.mark.parametrize("target", ["jetson-orin", "jetson-thor", "rtx", "hopper"])
def test_a_sound_bundle_passes_every_check(target: str, tmp_path: Path) -> None:
    report = check(sound(tmp_path / "bundle"), target)
    assert report.findings == ()
    assert report.verdict == "ok"
    assert report.checks == tuple(f"PF{n:03}" for n in range(1, len(CHECKS) + 1))


def test_the_same_graphs_pass_where_they_are_right(tmp_path: Path) -> None:
    assert check(quantised(tmp_path / "a", np.int8(0)), "rtx").findings == ()
    assert check(many_keys(tmp_path / "b", 65_536, F32), "jetson-orin").findings == ()
    assert check(many_keys(tmp_path / "c", 65_000, F16), "jetson-orin").findings == ()
    assert check(fp8(tmp_path / "d"), "jetson-thor").findings == ()
    assert {f.check for f in check(with_engine(tmp_path / "e"), "jetson-orin").findings} == set()


def test_wide_and_odd_heads_are_a_risk(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", "x", "turned", perm=[0, 2, 1]),
        node("MatMul", "turned x", "scores"),
        node("Mul", "scores factor", "scaled"),
        node("Softmax", "scaled", "weights", axis=-1),
        node("MatMul", "x weights", "y"),
    ]
    path = seeded.bundle(tmp_path / "bundle", nodes, {"factor": np.float32(0.25)})  # type: ignore[dict-item]
    assert check(path, "rtx").findings == ()  # 16 wide
    nodes[0] = node("Slice", "x start stop axis", "narrow")
    nodes[1] = node("MatMul", "narrow turned", "scores")
    nodes.insert(1, node("Transpose", "narrow", "turned", perm=[0, 2, 1]))
    nodes[-1] = node("MatMul", "weights x", "y")
    cut = {"start": np.array([0]), "stop": np.array([13]), "axis": np.array([2]), "factor": np.float32(0.25)}
    findings = check(seeded.bundle(tmp_path / "odd", nodes, cut), "rtx").findings  # type: ignore[arg-type]
    assert [(f.check, f.verdict) for f in findings] == [("PF013", "risky")]
    assert "width 13" in findings[0].message


def test_types_that_tensorrt_lacks(tmp_path: Path) -> None:
    nodes = [node("Cast", "x", "wide", to=TensorProto.DOUBLE), node("Cast", "wide", "y", to=F32)]
    findings = check(seeded.bundle(tmp_path / "bundle", nodes), "rtx").findings
    assert [(f.check, f.verdict) for f in findings] == [("PF014", "blocked")]


def test_a_named_boards_memory_decides(tmp_path: Path) -> None:
    path = sound(tmp_path / "bundle")
    assert check(path, "jetson-orin", memory=8 * 10**9).verdict == "ok"
    report = check(path, "jetson-orin", memory=2 * 10**9)
    assert [f.check for f in report.findings] == ["PF010"]
    assert "a board of 2 GB" in report.findings[0].message
    assert report.memory.build_peak > report.memory.run_peak > 0


def test_the_forecast_counts_what_lives_at_once() -> None:
    import onnx_ir as ir

    chain = [node("Relu", "x", "a"), node("Relu", "a", "b"), node("Add", "a b", "c"), node("Relu", "c", "y")]
    infos = [onnx.helper.make_tensor_value_info(n, F32, (10,)) for n in ("x", "y")]
    inner = [onnx.helper.make_tensor_value_info(n, F32, (10,)) for n in "abc"]
    graph = onnx.helper.make_graph(chain, "g", infos[:1], infos[1:], value_info=inner)
    assert live_bytes(ir.from_proto(onnx.helper.make_model(graph)).graph) == 3 * 40  # a, b and c


def test_targets_without_engines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="target cpu runs ONNX as it is"):
        check(tmp_path, "cpu")
    with pytest.raises(UsageError, match=r"expected one of jetson-orin.*, got 'dla'"):
        check(tmp_path, "dla")


def test_the_operator_table_agrees_with_the_real_parser() -> None:
    """REAL: TensorRT-RTX's parser is asked for every operator of the table."""
    trt = load_tensorrt("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.ERROR)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    assert [name for name in sorted(NO_IMPORTER) if parser.supports_operator(name)] == []
    for name in ("MatMul", "Softmax", "Attention", "LayerNormalization", "LSTM", "GRU", "Conv", "Erf", "Where"):
        assert parser.supports_operator(name), name
