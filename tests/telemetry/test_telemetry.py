# ruff: noqa: N802, N815  (NVML's own names)
"""Parsers and sources of telemetry, on lines that boards printed (`recorded_lines`) and on files as their kernels have.

The figures in the files, and in the lines of this module, are made up: no Jetson was at hand.
"""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from telemetry.recorded_lines import RECORDED, Recorded

from perceiver_runtime import machine as machine_module
from perceiver_runtime.errors import FeedError, UnavailableError
from perceiver_runtime.machine import jetpack_release
from perceiver_runtime.telemetry import Sample, open_source, record
from perceiver_runtime.telemetry import processor as processor_module
from perceiver_runtime.telemetry.jetson import Jetson, parse_power_mode, query_power_mode
from perceiver_runtime.telemetry.nvml import Nvml
from perceiver_runtime.telemetry.processor import Processor, require_rapl
from perceiver_runtime.telemetry.rails import find_rails, total
from perceiver_runtime.telemetry.recorder import Recording
from perceiver_runtime.telemetry.tegrastats import parse_line

AGX_ORIN_JETPACK_6 = (
    "11-08-2024 10:42:06 RAM 3463/30587MB (lfb 5x4MB) SWAP 0/15293MB (cached 0MB) "
    "CPU [2%@729,0%@729,0%@729,0%@729,off,off,off,off] EMC_FREQ 1%@2133 GR3D_FREQ 10%@1300 NVENC off NVDEC off "
    "APE 174 CV0@-256C CPU@47.906C Tboard@35C SOC2@44.437C Tdiode@37.25C CV1@-256C GPU@45.5C tj@47.906C "
    "VDD_GPU_SOC 5139mW/5139mW VDD_CPU_CV 397mW/397mW VIN_SYS_5V0 2428mW/2428mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 293mW/293mW NC 0mW/0mW"
)
ORIN_NANO_JETPACK_6 = (
    "02-20-2025 09:00:01 RAM 2517/7620MB (lfb 3x4MB) SWAP 12/3810MB (cached 0MB) CPU [10%@1510,3%@1510] "
    "EMC_FREQ 2%@2133 GR3D_FREQ 0%@[611,0] cpu@49.75C soc2@48.5C gpu@50.062C tj@50.062C "
    "VDD_IN 5123mW/5090mW VDD_CPU_GPU_CV 820mW/811mW VDD_SOC 1483mW/1483mW"
)
ORIN_JETPACK_7 = (
    "11-20-2026 12:00:00 RAM 4000/62841MB (lfb 12x4MB) SWAP 0/31420MB (cached 0MB) CPU [1%@729] "
    "GR3D_FREQ 12%@[1300,1300] cpu@51.9C gpu@48.2C "
    "VDD_GPU_SOC 5139mW/5139mW/5139mW VDD_CPU_CV 792mW/700mW/1189mW VIN_SYS_5V0 3636mW/3600mW/3737mW"
)
THOR_JETPACK_7 = (
    "11-20-2026 12:00:00 RAM 9000/125772MB (lfb 60x4MB) CPU [1%@972] GR3D_FREQ @[1575,1575,1575] "
    "cpu@52.1C gpu@49.8C VIN 31250mW/30900mW/33100mW VDD_GPU 4000mW/4000mW/4000mW"
)


@pytest.mark.parametrize(
    ("line", "gpu_mhz", "load", "watts", "used_mib", "total_mib"),
    [
        (AGX_ORIN_JETPACK_6, 1300, 0.10, 7.964, 3463, 30587),
        (ORIN_NANO_JETPACK_6, 611, 0.0, 5.123, 2517, 7620),
        (ORIN_JETPACK_7, 1300, 0.12, 9.567, 4000, 62841),
        (THOR_JETPACK_7, 1575, None, 31.25, 9000, 125772),
    ],
)
def test_lines_of_every_jetpack(
    line: str, gpu_mhz: int, load: float | None, watts: float, used_mib: int, total_mib: int
) -> None:
    sample = parse_line(line, time=1.5)
    assert sample.time == 1.5
    assert sample.clock["gpu"] == gpu_mhz * 1e6
    assert sample.utilisation == load
    assert sample.total_power == pytest.approx(watts)
    assert (sample.memory_used, sample.memory_total) == (used_mib << 20, total_mib << 20)
    assert sample.temperature["cpu"] > 40


@pytest.mark.parametrize("recorded", RECORDED, ids=lambda recorded: recorded.board)
def test_lines_that_boards_printed(recorded: Recorded) -> None:
    sample = parse_line(recorded.line, time=0.0)
    assert sample.power == pytest.approx(recorded.power)
    assert sample.total_power == pytest.approx(recorded.total)
    assert max(sample.temperature.items(), key=lambda zone: zone[1]) == recorded.hottest
    assert min(sample.temperature.values()) > 0
    assert sample.clock == recorded.clock
    assert sample.utilisation == recorded.load
    assert (sample.memory_used, sample.memory_total) == (recorded.used << 20, recorded.memory << 20)


def test_sensors_that_are_off_and_unconnected_rails_are_left_out() -> None:
    sample = parse_line(AGX_ORIN_JETPACK_6, 0)
    assert set(sample.power) == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}
    assert "cv0" not in sample.temperature
    assert sample.temperature["gpu"] == 45.5
    assert sample.clock["emc"] == 2133e6


def test_other_lines_are_refused() -> None:
    with pytest.raises(FeedError, match="expected a line with `RAM used/totalMB`, got 'hello'"):
        parse_line("hello", 0)


def test_power_modes() -> None:
    assert parse_power_mode("NV Power Mode: MAXN\n0\n") == "MAXN"
    assert parse_power_mode("NVPM WARN: fan mode is not set!\nNV Power Mode: 25W\n1\n") == "25W"
    assert parse_power_mode("") is None


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def board(tmp_path: Path) -> Path:
    """sysfs and procfs of an AGX Orin, as far as they are read."""
    first = tmp_path / "sys/bus/i2c/devices/1-0040/hwmon/hwmon3"
    second = tmp_path / "sys/bus/i2c/devices/1-0041/hwmon/hwmon4"
    rails = [
        (first, 1, "VDD_GPU_SOC", 19800, 260),
        (first, 2, "VDD_CPU_CV", 19840, 40),
        (first, 3, "VIN_SYS_5V0", 5000, 700),
        (second, 1, "NC", 5000, 8),
        (second, 2, "VDDQ_VDD2_1V8AO", 5000, 60),
    ]
    for monitor, number, label, millivolts, milliamperes in rails:
        write(monitor / f"in{number}_label", label + "\n")
        write(monitor / f"in{number}_input", f"{millivolts}\n")
        write(monitor / f"curr{number}_input", f"{milliamperes}\n")
    write(tmp_path / "sys/class/thermal/thermal_zone0/type", "cpu-thermal\n")
    write(tmp_path / "sys/class/thermal/thermal_zone0/temp", "47906\n")
    write(tmp_path / "sys/class/devfreq/17000000.gpu/cur_freq", "1300500000\n")
    write(tmp_path / "sys/class/hwmon/hwmon5/oc1_event_cnt", "0\n")
    write(tmp_path / "proc/meminfo", "MemTotal:  64000 kB\nMemFree: 1 kB\nMemAvailable:  48000 kB\n")
    write(tmp_path / "proc/device-tree/model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    return tmp_path


def test_rails_are_volts_times_amperes(board: Path) -> None:
    rails = {rail.name: rail.power() for rail in find_rails(board / "sys")}
    assert rails == pytest.approx(
        {"VDD_GPU_SOC": 5.148, "VDD_CPU_CV": 0.7936, "VIN_SYS_5V0": 3.5, "VDDQ_VDD2_1V8AO": 0.3}
    )
    assert total(rails) == pytest.approx(5.148 + 0.7936 + 3.5)


def test_thors_unlabelled_monitor_is_the_boards_input(tmp_path: Path) -> None:
    """INA238 as Linux's driver shows it (Documentation/hwmon/ina238.rst): in0 is the shunt, in1 the bus; no labels."""
    labelled, unlabelled = (tmp_path / f"sys/bus/i2c/devices/2-004{n}/hwmon/hwmon{n}" for n in (0, 4))
    write(labelled / "name", "ina3221\n")
    for number, label in enumerate(("VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0"), start=1):
        write(labelled / f"in{number}_label", label + "\n")
        write(labelled / f"in{number}_input", "12040\n")
        write(labelled / f"curr{number}_input", "640\n")
    write(labelled / "in7_label", "sum of shunt voltages\n")
    write(labelled / "in7_input", "9\n")
    for name, value in {"name": "ina238", "in0_input": "2", "in1_input": "19900", "curr1_input": "1500"}.items():
        write(unlabelled / name, value + "\n")
    rails = {rail.name: rail.power() for rail in find_rails(tmp_path / "sys")}
    assert set(rails) == {"VDD_GPU", "VDD_CPU_SOC_MSS", "VIN_SYS_5V0", "VIN"}
    assert total(rails) == pytest.approx(29.85)


def test_a_jetson_from_sysfs(board: Path) -> None:
    jetson = Jetson(board / "sys", board / "proc", power_mode="MAXN")
    assert jetson.description == "NVIDIA Jetson AGX Orin Developer Kit, power mode MAXN"
    sample = jetson.sample()
    assert sample.temperature == {"cpu-thermal": 47.906}
    assert sample.clock == {"gpu": 1300500000.0}
    assert (sample.memory_used, sample.memory_total) == (16000 * 1024, 64000 * 1024)
    assert sample.throttled == ()
    write(board / "sys/class/hwmon/hwmon5/oc1_event_cnt", "3\n")
    assert jetson.sample().throttled == ("oc1_event_cnt",)


def test_silent_sensors_are_left_out(board: Path) -> None:
    jetson = Jetson(board / "sys", board / "proc", power_mode="MAXN")
    write(board / "sys/bus/i2c/devices/1-0040/hwmon/hwmon3/curr1_input", "")
    (board / "sys/class/thermal/thermal_zone0/temp").unlink()
    sample = jetson.sample()
    assert "VDD_GPU_SOC" not in sample.power
    assert sample.temperature == {}


class FakeNvml:
    """As much of NVML as is asked for; names are held against the real package below."""

    class NVMLError(Exception):
        pass

    NVML_TEMPERATURE_GPU, NVML_CLOCK_SM = 0, 1
    nvmlClocksEventReasonSwPowerCap = 4
    nvmlClocksEventReasonSwThermalSlowdown = 32
    nvmlClocksThrottleReasonHwThermalSlowdown = 64
    nvmlClocksThrottleReasonHwPowerBrakeSlowdown = 128

    def __init__(self, broken: bool = False) -> None:
        self._broken = broken

    def nvmlInit(self) -> None:
        if self._broken:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetName(self, device: int) -> str:
        return "RTX 4090"

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetEnforcedPowerLimit(self, device: int) -> int:
        return 450_000

    def nvmlDeviceGetTotalEnergyConsumption(self, device: int) -> int:
        return 7_500

    def nvmlDeviceGetCudaComputeCapability(self, device: int) -> list[int]:
        return [8, 9]

    def nvmlDeviceGetPowerUsage(self, device: int) -> int:
        return 120_500

    def nvmlDeviceGetTemperature(self, device: int, sensor: int) -> int:
        return 61

    def nvmlDeviceGetClockInfo(self, device: int, kind: int) -> int:
        raise self.NVMLError("Not Supported")

    def nvmlDeviceGetUtilizationRates(self, device: int) -> Any:
        return SimpleNamespace(gpu=85)

    def nvmlDeviceGetMemoryInfo(self, device: int) -> Any:
        return SimpleNamespace(used=5, total=10)

    def nvmlDeviceGetCurrentClocksEventReasons(self, device: int) -> int:
        return 4 | 64


def test_a_desktop_gpu_through_nvml() -> None:
    source = Nvml(FakeNvml())
    assert source.description == "RTX 4090, driver 580.1"
    sample = source.sample()
    assert (sample.total_power, sample.temperature, sample.utilisation) == (120.5, {"gpu": 61.0}, 0.85)
    assert (source.power_mode, sample.energy, source.compute_capability()) == ("limit 450 W", 7.5, "8.9")
    assert sample.clock == {}  # this GPU does not say
    assert sample.throttled == ("power cap", "thermal (hardware)")
    with pytest.raises(UnavailableError, match="Driver Not Loaded"):
        Nvml(FakeNvml(broken=True))


def test_nvml_names_are_real() -> None:
    pynvml = pytest.importorskip("pynvml")
    own = [name for name in vars(FakeNvml) if name.lower().startswith("nvml")]
    assert len(own) > 12
    assert [name for name in own if not hasattr(pynvml, name)] == []
    for name in own:
        if isinstance(value := getattr(FakeNvml, name), int):
            assert getattr(pynvml, name) == value


def rapl(sysfs: Path, **domains: int) -> None:
    """Powercap as Linux has it: a package, parts of it, and the memory beside them."""
    for name, microjoules in domains.items():
        number = {"package": "0", "core": "0:0", "dram": "0:1", "psys": "1"}[name]
        folder = sysfs / f"class/powercap/intel-rapl:{number}"
        write(folder / "name", "package-0\n" if name == "package" else f"{name}\n")
        write(folder / "energy_uj", f"{microjoules}\n")
        write(folder / "max_energy_range_uj", "1000000000\n")


def test_energy_of_package_and_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter((10.0, 12.0, 13.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(seconds))
    cpus = tmp_path / "devices/system/cpu"
    write(cpus / "cpu0/cpufreq/scaling_governor", "performance\n")
    for cpu, kilohertz in enumerate(("1200000", "3400000")):
        write(cpus / f"cpu{cpu}/cpufreq/scaling_cur_freq", kilohertz)
    write(cpus / "cpu0/thermal_throttle/core_throttle_count", "5\n")
    rapl(tmp_path, package=999_000_000, core=1, dram=2_000_000, psys=9)
    require_rapl(tmp_path)
    processor = Processor(tmp_path, tmp_path)
    assert processor.power_mode == "performance"
    assert processor.description == "RAPL: dram-0, package-0"
    first = processor.sample()
    assert (first.energy, first.total_power, first.clock, first.throttled) == (0.0, None, {"cpu": 3.4e9}, ())
    write(cpus / "cpu0/thermal_throttle/core_throttle_count", "6\n")
    rapl(tmp_path, package=19_000_000, core=1, dram=6_000_000)  # the counter of the package began again
    second = processor.sample()
    assert second.energy == pytest.approx(24)
    assert second.power == pytest.approx({"package-0": 10, "dram-0": 2})
    assert second.throttled == ("core_throttle",)
    summary = Recording("test", [first, second]).summary()
    assert (summary.energy, summary.mean_power, summary.lowest_clock) == pytest.approx((24, 12, 3.4e9))


def test_without_energy_counters_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError, match="expected RAPL energy counters"):
        require_rapl(tmp_path)
    rapl(tmp_path, package=1)
    monkeypatch.setattr(processor_module, "read_integer", lambda _: None)  # what a user who is not root gets
    with pytest.raises(UnavailableError, match=r"chmod a.r /sys/class/powercap"):
        require_rapl(tmp_path)


def test_releases(tmp_path: Path) -> None:
    path = tmp_path / "nv_tegra_release"
    assert jetpack_release(path) is None
    path.write_text("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n")
    assert jetpack_release(path) == "R36.4"


def test_machines_are_named_by_board_or_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "BOARD", tmp_path / "model")
    monkeypatch.setattr(machine_module, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr("platform.processor", lambda: "")
    assert machine_module.machine().startswith("unknown processor, ")
    write(tmp_path / "cpuinfo", "processor\t: 0\nBogoMIPS\t: 62.50\n")
    assert machine_module.machine().startswith("unknown processor, ")
    write(tmp_path / "cpuinfo", "processor\t: 0\nmodel name\t: AMD EPYC 7763: 64-Core\n")
    assert machine_module.machine().startswith("AMD EPYC 7763: 64-Core, ")
    write(tmp_path / "model", "NVIDIA Jetson AGX Orin Developer Kit\0")
    assert machine_module.machine().startswith("NVIDIA Jetson AGX Orin Developer Kit, ")


@pytest.mark.parametrize(
    ("program", "mode"),
    [
        ("#!/bin/sh\necho 'NV Power Mode: MODE_30W'\n", "MODE_30W"),
        ("#!/bin/sh\nexit 1\n", None),
        ("#!/nowhere/sh\n", None),
        (None, None),
    ],
)
def test_the_power_mode_of_this_board(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None, mode: str | None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    if program is not None:
        write(tmp_path / "nvpmodel", program)
        (tmp_path / "nvpmodel").chmod(0o755)
    assert query_power_mode() == mode


def test_this_machine_without_either_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(UnavailableError, match="expected a Jetson, or NVML"):
        open_source()


def test_energy_is_the_integral_of_power() -> None:
    watts = [10.0, 20.0, 20.0, None]
    samples = [
        Sample(float(i), total_power=w, temperature={"gpu": 40.0 + i}, clock={"gpu": 1e9 - i}, memory_used=i)
        for i, w in enumerate(watts)
    ]
    summary = Recording("test", samples).summary()
    assert summary.energy == 15 + 20
    assert summary.peak_power == 20
    assert summary.peak_temperature == 43
    assert summary.lowest_clock == 1e9 - 3
    assert summary.peak_memory == 3
    assert Recording("test", [Sample(0.0), Sample(1.0)]).summary().energy is None


class Counting:
    description = "a source that counts"
    power_mode: str | None = None

    def __init__(self, fail_at: int = 10**9) -> None:
        self.count, self._fail_at = 0, fail_at

    def sample(self) -> Sample:
        self.count += 1
        if self.count == self._fail_at:
            raise OSError("sensor gone")
        return Sample(time.monotonic(), total_power=5.0)


def test_recording_runs_beside_the_work() -> None:
    with record(Counting(), interval=0.005) as recording:
        time.sleep(0.1)
    summary = recording.summary()
    assert summary.samples >= 4
    assert summary.mean_power == pytest.approx(5.0)
    assert summary.energy == pytest.approx(5.0 * summary.seconds)


def test_a_failing_sensor_is_reported() -> None:
    with pytest.raises(OSError, match="sensor gone"), record(Counting(fail_at=3), interval=0.005):
        time.sleep(0.1)
