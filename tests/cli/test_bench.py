"""`perceiver-export bench`: several bundles, batch sizes and peers in one run, and a history of results."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from torch import Tensor, nn

from perceiver_deploy.api.bench import BenchmarkReport, bench
from perceiver_deploy.api.history import DRIFT, append, changes, read
from perceiver_deploy.cli.main import group
from perceiver_deploy.cli.values import PEER
from perceiver_deploy.peers import PEERS, Workload
from perceiver_deploy.sources.source import resolve
from perceiver_runtime import FeedError, UnavailableError, UsageError
from perceiver_runtime.benchmark.statistics import Distribution, Ratio
from perceiver_runtime.conditions import Conditions
from perceiver_runtime.measure.compare import relative_l2

NAME = "fashion-perceiver"
CONDITIONS = Conditions(
    "b", "m", "fp32", "cpu", "onnxruntime", 1, "a machine", ("avx2",), {"numpy": "2"}, "2026-01-01T00:00:00Z", 0.1
)
pytestmark = pytest.mark.xdist_group("cli")


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    pixels = np.random.default_rng(0).standard_normal((2, 1, 28, 28)).astype(np.float32)
    return Workload(resolve(NAME), {"pixel_values": pixels}, 1, tmp_path_factory.mktemp("peers"))


def _first(answer: object) -> np.ndarray:
    values = list(answer.values()) if hasattr(answer, "values") and not hasattr(answer, "numpy") else answer
    return np.asarray(values[0] if isinstance(values, (list, tuple)) else values)


@pytest.mark.parametrize("peer", ["torch", "onnxruntime", "openvino"])
def test_peers_compute_what_the_model_does(workload: Workload, peer: str) -> None:
    module, arguments, named = workload.call()
    expected = module(*arguments, **named).detach().numpy()
    assert relative_l2(_first(PEERS[peer].make(workload)()), expected) < 1e-5


def test_a_peer_that_cannot_run_a_module_says_so(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.onnx.export", lambda *_, **__: 1 / 0)
    with pytest.raises(UnavailableError, match=r"torch\.onnx\.export can't run this module: ZeroDivisionError"):
        PEERS["onnxruntime"].make(replace(workload, directory=workload.directory / "other"))
    monkeypatch.setattr("torch.compile", lambda _: lambda *_, **__: 1 / 0)
    with pytest.raises(UnavailableError, match=r"torch\.compile: ZeroDivisionError"):
        PEERS["torch-compile"].make(workload)


@pytest.mark.parametrize("feeds", [("image", "audio", "image_index", "audio_index"), ("image", "audio")])
def test_a_module_that_takes_other_arguments_is_run_by_its_components(
    workload: Workload, feeds: tuple[str, ...]
) -> None:
    """Such as the multimodal model, whose module takes points and its bundle their indices."""

    class Pointwise(nn.Module):
        def forward(self, image: Tensor, audio: Tensor, points: Mapping[str, Tensor]) -> None: ...

    other = replace(
        workload, model=replace(workload.model, module=Pointwise()), feeds=dict.fromkeys(feeds, np.zeros(1))
    )
    assert not other.is_whole
    with pytest.raises(UnavailableError, match="expected a whole module, got components; take the peer torch alone"):
        PEERS["torch-compile"].make(other)


@pytest.mark.filterwarnings("ignore:Specified provider:UserWarning")
def test_peers_on_a_gpu_that_pytorch_does_not_find(workload: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    there = replace(workload, device="cuda")
    for peer in ("torch", "torch-compile"):
        with pytest.raises(UnavailableError, match=r"bundles run on the GPU, and this PyTorch .* install a CUDA build"):
            PEERS[peer].make(there)
    with pytest.raises(UnavailableError, match="it runs on the processor"):
        PEERS["openvino"].make(there)
    with pytest.raises(UnavailableError, match=r"ONNX Runtime can't run this module: .*CUDAExecutionProvider"):
        PEERS["onnxruntime"].make(there)


def test_the_command_line_knows_all_peers() -> None:
    assert set(PEER.names) == {"none", *PEERS}


def test_bundles_and_peers_take_turns(bundles: dict[str, Path], tmp_path: Path) -> None:
    arguments = ["bench", str(bundles["fp32"]), str(bundles["int8"]), "--iterations", "3", "--batch", "1,2", "-q"]
    history = str(tmp_path / "history.jsonl")
    done = CliRunner().invoke(group, [*arguments, "--json", "--save", history], standalone_mode=False)
    assert done.exception is None
    reports = json.loads(done.stdout)
    assert [(Path(r["bundle"]).name, r["batch"]) for r in reports] == [
        (bundles[name].name, batch) for batch in (1, 2) for name in ("fp32", "int8")
    ]
    for report in reports:
        assert set(report["speedups"]) == {"torch", *(r["bundle"] for r in reports)} - {report["bundle"]}
        assert len(report["peers"]["torch"]["samples"]) == 3
        known = report["conditions"]
        assert (known["bundle"], known["model"]) == (Path(report["bundle"]).name, NAME)
        assert known["precision"] == report["precision"]
        assert known["date"]
        assert str(tmp_path) not in json.dumps(known)
    shown = CliRunner().invoke(group, [*arguments, "--against", "none", "--compare", history], standalone_mode=False)
    assert "Beside the latest results" in shown.stdout
    assert shown.return_value in (0, 1)
    assert len(read(Path(history))) == 4


def test_a_duration_sets_the_number_of_calls(bundles: dict[str, Path]) -> None:
    few, many = (bench(bundles["fp32"], against=(), duration=seconds)[0] for seconds in (0.05, 0.5))
    assert 2 <= len(few.session.samples) < len(many.session.samples)
    with pytest.raises(UsageError, match=r"duration \(--duration\): expected seconds above 0"):
        bench(bundles["fp32"], duration=0.0)


def test_peers_run_in_one_place(bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    units = iter(["gpu", "processor"])
    monkeypatch.setattr("perceiver_deploy.api.bench.unit_of", lambda _: next(units))
    with pytest.raises(UsageError, match="or all on a GPU, as the peers do, got onnxruntime, "):
        bench([bundles["fp32"], bundles["int8"]])


def test_bundles_of_different_models_are_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="different bundles, got one twice"):
        bench([bundles["fp32"], bundles["fp32"]])
    with pytest.raises(UsageError, match=r"against \(--against\): expected one of .*did you mean torch"):
        bench(bundles["fp32"], against=["torhc"])


def _report(times: Sequence[float], peer: Sequence[float] | None = None) -> BenchmarkReport:
    peers = {} if peer is None else {"torch": Distribution.of(peer)}
    return BenchmarkReport("b", "onnxruntime", "fp32", 1, 1, Distribution.of(times), peers, {}, None, "", CONDITIONS)


def _entries(runs: Sequence[BenchmarkReport], path: Path) -> tuple[BenchmarkReport, ...]:
    for run in runs:
        append(path, [run])
    return read(path)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "same"), (1.02, "same"), (1.2, "slower"), (0.8, "faster")])
def test_a_change_counts_beyond_the_noise(tmp_path: Path, factor: float, verdict: str) -> None:
    random = np.random.default_rng(0)

    def run(level: float) -> list[float]:
        return list(level * random.lognormal(0, 0.03, 50))

    history = _entries([_report(run(10.0))], tmp_path / "h.jsonl")
    (change,) = changes([_report(run(10.0 * factor))], history)
    assert (change.verdict, change.noise, change.runs) == (verdict, DRIFT, 1)
    assert change.ratio.low < change.ratio.median < change.ratio.high
    assert isinstance(change.ratio, Ratio)


def test_a_slower_machine_is_no_slower_bundle(tmp_path: Path) -> None:
    """Both runs timed a peer: what slowed both down is no change."""
    history = _entries([_report([10.0, 11.0, 10.5], [20.0, 22.0, 21.0])], tmp_path / "h.jsonl")
    (change,) = changes([_report([20.0, 22.0, 21.0], [40.0, 44.0, 42.0])], history)
    assert change.verdict == "same"
    assert change.ratio.median == pytest.approx(1)


def test_noise_is_what_earlier_runs_differ_by(tmp_path: Path) -> None:
    runs = [_report([level] * 5) for level in (10.0, 12.0, 9.0, 11.0, 10.0)]
    history = _entries(runs, tmp_path / "h.jsonl")
    (change,) = changes([_report([11.5] * 5)], history)
    assert change.noise > 0.2
    assert change.verdict == "same"


def test_other_results_are_not_compared(tmp_path: Path) -> None:
    history = _entries([replace(_report([1.0, 1.0]), batch=2)], tmp_path / "h.jsonl")
    assert changes([_report([9.0, 9.0])], history) == ()
    assert read(tmp_path / "none.jsonl") == ()


def test_a_damaged_history_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "h.jsonl"
    append(path, [_report([1.0, 2.0])])
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(FeedError, match=r"line 2: expected a result of `bench --save`"):
        read(path)
