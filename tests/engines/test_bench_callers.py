"""SIMULATION: `bench --concurrency` measures lanes over shared engines, one for each caller."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from engines.simulation.jetson import SimulatedJetson

from perceiver_runtime import Session, load_bundle
from perceiver_runtime.cli import bench
from perceiver_runtime.cli.options import Parser


@pytest.mark.parametrize(("asked", "lanes"), [("1,6", 6), ("100", 64), ("1", 4)])
def test_each_caller_has_a_lane(
    built: Path, jetson: SimulatedJetson, capsys: pytest.CaptureFixture[str], asked: str, lanes: int
) -> None:
    """More than the four lanes of a session that is opened without `callers`; as many as a session can have."""
    sessions: list[Session] = []

    def opened(options: argparse.Namespace, **chosen: Any) -> Session:
        sessions.append(Session(load_bundle(options.bundle), jetson.backend(), **chosen))
        return sessions[0]

    shared = Parser(add_help=False)
    shared.add_argument("bundle", type=Path)
    shared.add_argument("--json", action="store_true")
    parser = Parser()
    bench.add_command(parser.add_subparsers(), shared, opened, lambda _: None)
    words = (
        "bench",
        str(built),
        "--json",
        "--concurrency",
        asked,
        "--iterations",
        "2",
        "--warmup",
        "0",
        "--batch",
        "2",
    )
    options = parser.parse_args(words)
    assert options.command(options) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["batch"], found["backend"]) == (2, "tensorrt")
    assert [str(level["callers"]) for level in found["callers"]] == asked.split(",")
    assert sessions[0].concurrency == lanes
