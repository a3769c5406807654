"""`perceiver-export verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perceiver_deploy.cli.output import json_option, print_json, print_table

if TYPE_CHECKING:
    from perceiver_runtime.verify import VerifyReport

COLUMNS = ("component:<", "tensor:<", "fed by:<", "max abs", "rel L2", "cosine", "tolerance", "verdict:<")


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--backend", help="Backend to run the bundle on (default: the one that computes as its target does).")
@json_option
def command(bundle: Path, backend: str | None, as_json: bool) -> int:
    """Compare BUNDLE with its golden samples: each component on reference inputs, then the whole pipeline."""
    from perceiver_runtime import load_bundle, verify

    return show(bundle, verify(bundle, backend or backend_for(load_bundle(bundle).manifest.target)), as_json)


def backend_for(target: str) -> str:
    """Integers meant for a GPU are verified as a GPU computes them, not as this processor's kernels would."""
    from perceiver_exporters.targets import TARGETS

    known = TARGETS.get(target)
    return "onnxruntime-exact" if known is not None and known.engines is not None else "auto"


def show(bundle: Path, report: VerifyReport, as_json: bool) -> int:
    """Print a report; answer the exit code."""
    if as_json:
        print_json(report.reports)
    else:
        rows = [
            (
                r.component,
                r.tensor,
                r.mode,
                f"{r.max_abs:.2e}",
                f"{r.rel_l2:.2e}",
                f"{r.cosine:.6f}",
                f"{r.tolerance:.2e}",
                "held" if r.passed else "FAILED",
            )
            for r in report.reports
        ]
        print_table(f"Parity of {bundle}", COLUMNS, rows)
    return 0 if report.passed else 1
