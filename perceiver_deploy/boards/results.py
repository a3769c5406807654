"""Imported results: one line of JSON each in a file of the user, and their rows for docs/jetson.md."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from perceiver_deploy.boards.compare import Comparison, board_of, compare
from perceiver_deploy.boards.plausible import check_bundle, check_plausible
from perceiver_runtime.benchmark.report import Energy
from perceiver_runtime.bundle import load_bundle
from perceiver_runtime.errors import BundleError, ReportError, UsageError
from perceiver_runtime.format import schema, strict_json
from perceiver_runtime.format.outputs import exclusive, replacing
from perceiver_runtime.selftest.archive import read_report
from perceiver_runtime.selftest.records import SelfTest

STORE = "boards.jsonl"
NOT_MEASURED = "not measured"
COLUMNS = (
    "board:<",
    "power mode:<",
    "runtime:<",
    "model:<",
    "precision:<",
    "ms p50",
    "ms p99",
    "J per inference",
    "forecast ms",
    "of peak",
    "of bandwidth",
)
"""Columns of the table of docs/jetson.md, in the notation of `perceiver_runtime.cli.table`."""


@dataclass(frozen=True)
class BoardResult:
    """What one report says.

    Attributes:
        sha256: Digest of the report's content.
        date: When it was measured.
        device: The device as it names itself.
        board: Board of the target table; None: measured only.
        power_mode: Power mode; None where the device has none.
        backend: What ran the bundle.
        versions: Versions of its libraries.
        bundle_sha256: Digest of the bundle's content.
        model: Model.
        precision: Precision.
        batch: Rows per run.
        p50: Median milliseconds of a run.
        p99: 99th percentile.
        joules: Energy of an inference; None if it was not measured.
        throttled: What the device throttled for meanwhile.
        comparison: Beside the forecast; None if there is none.
        reason: Why there is no comparison.
    """

    sha256: str
    date: str
    device: str
    board: str | None
    power_mode: str | None
    backend: str
    versions: Mapping[str, str]
    bundle_sha256: str
    model: str
    precision: str
    batch: int
    p50: float
    p99: float
    joules: float | None
    throttled: tuple[str, ...]
    comparison: Comparison | None
    reason: str = ""


def read_result(report: Path, bundle: Path | None = None) -> BoardResult:
    """Check a report of `perceiver-run selftest`, and put it beside the forecast.

    Args:
        report: The file.
        bundle: The bundle that was copied to the board; None: no forecast.

    Returns:
        The result; nothing is stored.

    Raises:
        ReportError: The report is damaged, contradicts itself, or is of another bundle.
        CheckError: Parity failed on the board.
        BundleError: The bundle is damaged.
    """
    made, index = read_report(report)
    check_plausible(made)
    board, comparison, reason = board_of(made), None, ""
    if isinstance(board, str):
        reason = board
    if bundle is None:
        reason = reason or "no bundle was given: --bundle adds the forecast"
    else:
        with load_bundle(bundle) as loaded:
            check_bundle(made, loaded)
            if not isinstance(board, str):
                try:
                    comparison = compare(made, loaded, board)
                except UsageError as error:
                    reason = str(error)
    return _result(made, index.sha256, None if isinstance(board, str) else board.name, comparison, reason)


def _result(made: SelfTest, sha256: str, board: str | None, comparison: Comparison | None, reason: str) -> BoardResult:
    latency, conditions, telemetry = made.latency, made.machine.conditions, made.machine.telemetry
    energy = latency.energy if isinstance(latency.energy, Energy) else None
    return BoardResult(
        sha256=sha256,
        date=conditions.date,
        device=conditions.machine if energy is None else f"{conditions.machine}; {energy.source}",
        board=board,
        power_mode=telemetry.power_mode,
        backend=conditions.backend,
        versions=conditions.versions,
        bundle_sha256=made.bundle.sha256,
        model=made.bundle.model,
        precision=made.bundle.precision,
        batch=latency.batch,
        p50=latency.total.p50,
        p99=latency.total.p99,
        joules=None if energy is None else energy.joules_per_inference,
        throttled=() if energy is None else energy.throttled,
        comparison=comparison,
        reason=reason,
    )


def store_path(environment: Mapping[str, str] = os.environ) -> Path:
    """`perceiver-deploy/boards.jsonl` in the user's data directory (XDG). Raises UsageError if there is no home."""
    if data := environment.get("XDG_DATA_HOME"):
        return Path(data) / "perceiver-deploy" / STORE
    try:
        return Path(environment.get("HOME") or "~").expanduser() / ".local" / "share" / "perceiver-deploy" / STORE
    except RuntimeError as error:  # as pathlib says it
        raise UsageError("boards: this user has no home directory; name a file: --store FILE") from error


def read_results(path: Path) -> tuple[BoardResult, ...]:
    """The stored results; none if the file is not there. Raises ReportError for a line that is none."""
    if not path.exists():
        return ()
    return tuple(_parsed(line, f"{path}: line {i}") for i, line in enumerate(path.read_bytes().splitlines(), 1))


def add_result(path: Path, result: BoardResult) -> None:
    """Store a result; one of the same report is replaced. The file is written whole or stays. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path), replacing(path) as partial:
        kept = [each for each in read_results(path) if each.sha256 != result.sha256]
        lines = (strict_json.dumps(schema.encode(each), indent=None) for each in (*kept, result))
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def rows(results: Sequence[BoardResult]) -> list[tuple[str, ...]]:
    """Rows of the table, a result each."""
    return [_row(each) for each in results]


def _row(result: BoardResult) -> tuple[str, ...]:
    run = None if result.comparison is None else result.comparison.run
    version = result.versions.get(result.backend, "")
    return (
        result.board or f"{result.device} (measured only)",
        result.power_mode or "",
        f"{result.backend} {version}".strip(),
        result.model,
        result.precision,
        f"{result.p50:.3g}",
        f"{result.p99:.3g}",
        NOT_MEASURED if result.joules is None else f"{result.joules:.3g}",
        "none" if run is None else f"{run.optimistic_ms:.3g} to {run.pessimistic_ms:.3g}",
        "" if run is None else f"{run.compute:.1%}",
        "" if run is None else f"{run.bandwidth:.1%}",
    )


def _parsed(line: bytes, where: str) -> BoardResult:
    try:
        return schema.decode(BoardResult, strict_json.loads(line), "result")
    except (ValueError, BundleError) as error:
        raise ReportError(f"{where}: expected a result of `perceiver-export boards import`: {error}") from error
