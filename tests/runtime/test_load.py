"""Other programs' load during a measurement: counted, told, and refused by `--strict`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perceiver_runtime import CheckError
from perceiver_runtime.benchmark import load
from perceiver_runtime.benchmark.load import LoadMeter, OtherLoad, require_idle
from perceiver_runtime.cli import main as cli

TICK = os.sysconf("SC_CLK_TCK")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Seconds of wall clock and of this process, set by the test."""
    seconds = {"wall": 0.0, "own": 0.0}
    monkeypatch.setattr(load, "perf_counter", lambda: seconds["wall"])
    monkeypatch.setattr(load, "_own_seconds", lambda: seconds["own"])
    return seconds


def stat(path: Path, **seconds: float) -> None:
    """A /proc/stat of these CPU seconds."""
    fields = "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice"
    path.write_text(f"cpu  {' '.join(str(int(seconds.get(f, 0) * TICK)) for f in fields)}\ncpu0 1 2 3\n", "ascii")


def test_what_others_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: dict[str, float]) -> None:
    """Idle and waiting time is nobody's, a guest's is in user time already; what the host took away is others'."""
    path = tmp_path / "stat"
    monkeypatch.setattr(load, "STAT", path)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    stat(path, user=100, idle=1000, iowait=5, guest=50)
    meter = LoadMeter()
    stat(path, user=112, system=1, idle=1500, iowait=90, guest=60, steal=2)
    clock.update(wall=10.0, own=5.0)
    assert meter.read() == OtherLoad(1.0, 4)
    clock.update(own=15.5)  # ticks are coarser than the process's own clock
    assert meter.read() == OtherLoad(0.0, 4)


@pytest.mark.parametrize("content", [None, "", "cpu what\n"])
def test_a_system_that_does_not_say(content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "stat"
    if content is not None:
        path.write_text(content, "ascii")
    monkeypatch.setattr(load, "STAT", path)
    assert LoadMeter().read() is None


def test_warned_of_or_refused() -> None:
    idle, busy, said = OtherLoad(0.05, 2), OtherLoad(1.26, 2), []
    for others in (idle, None):
        require_idle(others, said.append, strict=False)
    require_idle(idle, said.append, strict=True)
    assert not said
    require_idle(busy, said.append, strict=False)
    (warning,) = said
    assert "1.3 of 2 cores" in warning
    with pytest.raises(CheckError, match=r"1\.3 of 2 cores"):
        require_idle(busy, said.append, strict=True)
    with pytest.raises(CheckError, match="not known here"):
        require_idle(None, said.append, strict=True)


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoadMeter, "read", lambda _: OtherLoad(1.5, 2))


@pytest.mark.usefixtures("busy")
def test_bench_on_a_busy_machine(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", str(bundle), "--iterations", "2", "--warmup", "0"]
    assert cli.main(arguments) == 0
    shown = capsys.readouterr()
    assert "1.5 of 2 cores" in shown.out
    assert "warning" in shown.err
    assert cli.main([*arguments, "--strict"]) == 1
