# ruff: noqa: E501  (lines as they were printed)
"""Lines that `tegrastats` printed on boards, as their owners published them, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Recorded:
    """A line of a board, where it was published, and what it says: watts, degrees Celsius, Hz, MiB."""

    board: str
    source: str
    line: str
    power: Mapping[str, float]
    total: float
    hottest: tuple[str, float]
    clock: Mapping[str, float]
    load: float | None
    used: int
    memory: int


RECORDED = (
    Recorded(
        board="AGX Orin 64GB, R36.4.4 (JetPack 6.2.1)",
        source="github.com/lesomnus/tegra-exporter, stats/parse_test.go: nvidia-l4t-core 36.4.4-20250616085344",
        line="05-09-2026 18:42:06 RAM 18207/62841MB (lfb 466x4MB) SWAP 86/31420MB (cached 0MB) CPU [14%@2188,5%@2112,8%@2035,14%@2201,46%@1267,47%@1267,2%@1267,10%@1267,4%@1036,5%@1036,6%@1036,10%@1036] EMC_FREQ 3%@2133 GR3D_FREQ 0%@[0,0] NVENC 79%@166 NVDEC off NVJPG off NVJPG1 off VIC 36%@115 OFA off NVDLA0 off NVDLA1 off PVA0_FREQ off APE 174 cpu@52.562C soc2@48.437C soc0@49.093C tj@52.562C soc1@49.656C VDD_GPU_SOC 2412mW/2412mW VDD_CPU_CV 1607mW/1607mW VIN_SYS_5V0 4707mW/4707mW",
        power={"VDD_GPU_SOC": 2.412, "VDD_CPU_CV": 1.607, "VIN_SYS_5V0": 4.707},
        total=8.726,
        hottest=("cpu", 52.562),
        clock={"gpu": 0.0, "emc": 2133e6},
        load=0.0,
        used=18207,
        memory=62841,
    ),
    Recorded(
        board="AGX Orin 64GB, sensors of idle units at -256 degrees, unconnected rails (JetPack 5 and early 6)",
        source="github.com/GDWR/jetson_exporter/issues/14",
        line="04-11-2025 10:36:27 RAM 4321/62801MB (lfb 1759x4MB) SWAP 19/31400MB (cached 0MB) CPU [0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729,0%@729] EMC_FREQ 0%@2133 GR3D_FREQ 0%@[0,0] VIC_FREQ 729 APE 174 CV0@-256C CPU@44.562C Tboard@32C SOC2@40.093C Tdiode@33C SOC0@41.093C CV1@-256C GPU@-256C tj@44.343C SOC1@41.25C CV2@-256C VDD_GPU_SOC 2340mW/2340mW VDD_CPU_CV 390mW/390mW VIN_SYS_5V0 4025mW/4025mW NC 0mW/0mW VDDQ_VDD2_1V8AO 301mW/301mW NC 0mW/0mW",
        power={"VDD_GPU_SOC": 2.340, "VDD_CPU_CV": 0.390, "VIN_SYS_5V0": 4.025, "VDDQ_VDD2_1V8AO": 0.301},
        total=6.755,
        hottest=("cpu", 44.562),
        clock={"gpu": 0.0, "emc": 2133e6},
        load=0.0,
        used=4321,
        memory=62801,
    ),
    Recorded(
        board="Orin Nano, R39 (JetPack 7.2)",
        source="github.com/dlhagger/SqueakView, a line of its tests named R39_LINE",
        line="09-01-2026 09:25:18 RAM 5739/7546MB (lfb 1x2MB) SWAP 2047/2048MB (cached 209MB) CPU [72%@1728,75%@1728,88%@1728,79%@1728,87%@1728,78%@1728] GR3D_FREQ 33% cpu@50C/50C soc2@47.937C/47.937C soc0@48.437C/48.437C gpu@48.75C/48.75C tj@50C/50C soc1@48.5C/48.5C VDD_IN 9761mW/9761mW/9761mW VDD_CPU_GPU_CV 4238mW/4238mW/4238mW VDD_SOC 1825mW/1825mW/1825mW",
        power={"VDD_IN": 9.761, "VDD_CPU_GPU_CV": 4.238, "VDD_SOC": 1.825},
        total=9.761,
        hottest=("cpu", 50.0),
        clock={},
        load=0.33,
        used=5739,
        memory=7546,
    ),
    Recorded(
        board="AGX Thor, R38.4.0 (JetPack 7.1)",
        source="github.com/lesomnus/tegra-exporter, stats/parse_test.go: nvidia-l4t-core 38.4.0-20251230160601",
        line="05-17-2026 10:00:33 RAM 4280/125773MB (lfb 29x4MB) SWAP 0/2048MB (cached 0MB) CPU [0%@972,0%@972,0%@972,0%@972,1%@972,0%@972,1%@972,0%@972,0%@2601,17%@2601,1%@972,9%@972,0%@972,1%@972] EMC_FREQ 0%@665 GR3D_FREQ @[0,0,0] NVENC0_FREQ @0 NVENC1_FREQ @0 NVDEC0_FREQ @0 NVDEC1_FREQ @0 NVJPG0_FREQ @0 VIC off OFA_FREQ @0 PVA0_FREQ off APE 300 cpu@35.25C tj@36.031C soc012@36.062C soc345@34.5C VDD_GPU 0mW/0mW VDD_CPU_SOC_MSS 4923mW/4544mW VIN_SYS_5V0 4327mW/4227mW",
        power={"VDD_GPU": 0.0, "VDD_CPU_SOC_MSS": 4.923, "VIN_SYS_5V0": 4.327},
        total=9.250,
        hottest=("soc012", 36.062),
        clock={"gpu": 0.0, "emc": 665e6},
        load=None,
        used=4280,
        memory=125773,
    ),
)
