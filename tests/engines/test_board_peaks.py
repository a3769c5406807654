"""The boards' peaks against arithmetic: multiprocessors, what each does in a clock, and the clock."""

from __future__ import annotations

import pytest

from perceiver_exporters.targets.target import TARGETS

SIZES = {
    "Orin Nano 8GB Super": (8, 1.020e9, "ampere-jetson"),
    "Orin NX 16GB": (8, 0.918e9, "ampere-jetson"),
    "AGX Orin 64GB": (16, 1.300e9, "ampere-jetson"),
    "AGX Thor 128GB": (20, 1.575e9, "blackwell-jetson"),
    "RTX 3060 12GB": (28, 1.777e9, "ampere"),
    "RTX 4090 24GB": (128, 2.520e9, "ada"),
    "RTX 5090 32GB": (170, 2.407e9, "blackwell"),
    "H100 SXM 80GB": (132, 1.830e9, "hopper"),
}
"""Multiprocessors and highest clock."""

FP32_CLOCK = {"H100 SXM 80GB": 1.980e9}
"""Where the data sheet states FP32 at another clock than the tensor cores' rates."""

PER_CLOCK = {
    "ampere-jetson": {"fp32": 256, "fp16": 2048, "int8": 4096},
    "blackwell-jetson": {"fp32": 256, "fp16": 8192, "int8": 16384, "fp8": 16384},
    "ampere": {"fp32": 256, "fp16": 1024, "int8": 2048},
    "ada": {"fp32": 256, "fp16": 1024, "int8": 2048},
    "blackwell": {"fp32": 256, "fp16": 1024, "int8": 2048},
    "hopper": {"fp32": 256, "fp16": 4096, "int8": 8192, "fp8": 8192},
}
"""Dense operations (a multiply-add is two) of one multiprocessor in a clock, FP16 with FP16 accumulation."""

BOARDS = [board for target in TARGETS.values() for board in target.boards]


@pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.name)
def test_peaks_are_multiprocessors_times_rate_times_clock(board) -> None:
    count, clock, architecture = SIZES[board.name]
    rates = PER_CLOCK[architecture]
    assert set(board.peak) == set(rates)
    for precision, rate in rates.items():
        expected = count * rate * (FP32_CLOCK.get(board.name, clock) if precision == "fp32" else clock)
        assert board.peak[precision] == pytest.approx(expected, rel=0.02), precision
    assert board.source
