"""Lines of `tegrastats`, of JetPack 6 and 7, on Orin and Thor.

All of these occur:

GR3D_FREQ 10%@1300              JetPack 6: load and clock in MHz (also `@[1300,1300]`, one per GPC)
GR3D_FREQ 12%@[1300,1300]       JetPack 7 on Orin
GR3D_FREQ @[1575,1575,1575]     JetPack 7 on Thor: no load
VDD_GPU_SOC 5139mW/5139mW       now and average
VDD_GPU_SOC 5139mW/5139mW/5139mW  now, average, peak
"""

from __future__ import annotations

import re

from perceiver_runtime.errors import FeedError
from perceiver_runtime.telemetry.rails import NOT_CONNECTED, total
from perceiver_runtime.telemetry.sample import Sample

_MEBIBYTE = 1 << 20
_RAM = re.compile(r"\bRAM (\d+)/(\d+)MB")
_GPU = re.compile(r"\bGR3D_FREQ (?:(\d+)%)?@?(?:\[([\d,]+)\]|(\d+))?")
_EMC = re.compile(r"\bEMC_FREQ (?:\d+%)?@(\d+)")
_RAIL = re.compile(r"\b([A-Z][A-Z0-9_]+) (\d+)mW/\d+mW(?:/\d+mW)?")
_TEMPERATURE = re.compile(r"\b([A-Za-z][A-Za-z0-9_-]*)@(-?\d+(?:\.\d+)?)C\b")
_OFF = -256.0  # what a sensor of a unit that is switched off reads


def parse_line(line: str, time: float) -> Sample:
    """One line as a sample. Raises FeedError if it is no line of tegrastats."""
    try:
        return _parsed(line, time)
    except (ValueError, OverflowError) as error:  # a damaged line: a number too long, a clock of commas alone
        raise FeedError(f"tegrastats: expected numbers, got {line[:60]!r}: {error}") from error


def _parsed(line: str, time: float) -> Sample:
    memory = _RAM.search(line)
    if memory is None:
        raise FeedError(f"tegrastats: expected a line with `RAM used/totalMB`, got {line[:60]!r}")
    power = {name: int(milliwatts) / 1000 for name, milliwatts in _RAIL.findall(line) if name != NOT_CONNECTED}
    gpu, emc = _GPU.search(line), _EMC.search(line)
    clock = {} if gpu is None or not (mhz := gpu[2] or gpu[3]) else {"gpu": float(mhz.split(",")[0]) * 1e6}
    if emc is not None:
        clock["emc"] = float(emc[1]) * 1e6
    zones = {name.lower(): float(celsius) for name, celsius in _TEMPERATURE.findall(line)}
    return Sample(
        time=time,
        power=power,
        total_power=total(power),
        temperature={name: celsius for name, celsius in zones.items() if celsius > _OFF},
        clock=clock,
        utilisation=int(gpu[1]) / 100 if gpu is not None and gpu[1] else None,
        memory_used=int(memory[1]) * _MEBIBYTE,
        memory_total=int(memory[2]) * _MEBIBYTE,
    )
