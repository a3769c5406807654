"""`perceiver-export check`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.numbers import GIGABYTES
from perceiver_deploy.cli.output import json_option, print_json, print_table

GIGABYTE = 10**9


@click.command("check")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--target", required=True, help="jetson-orin, jetson-thor, rtx or hopper.")
@click.option("--memory", type=GIGABYTES, help="Memory of the board in GB, where the target has several.")
@json_option
def command(bundle: Path, target: str, memory: float | None, as_json: bool) -> int:
    """Find what keeps BUNDLE from its target, without a GPU and before any build. Exits with 1 if it is blocked."""
    from perceiver_exporters.preflight import check

    report = check(bundle, target, None if memory is None else int(memory * GIGABYTE))
    code = 1 if report.verdict == "blocked" else 0
    if as_json:
        print_json({"bundle": str(bundle), "verdict": report.verdict, **vars(report)})
        return code
    expected = report.memory
    print_table(
        f"{bundle} for {target}: {report.verdict}; building takes up to {expected.build_peak / 1e9:.1f} GB, running "
        f"{expected.run_peak / 1e9:.1f} GB (estimated)",
        ("check:<", "verdict:<", "component:<", "found:<", "remedy:<"),
        [(f.check, f.verdict, f.component, f.message, f.remedy) for f in report.findings],
        caption=f"{len(report.checks)} checks, {len(report.findings)} findings",
    )
    return code
