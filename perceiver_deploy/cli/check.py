"""`perceiver-export check`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.output import common_options, print_json, print_table
from perceiver_deploy.cli.values import ENGINE_TARGET, Size


@click.command("check")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--target", required=True, type=ENGINE_TARGET, help="What the bundle is to run on.")
@click.option("--memory", type=Size(), help="Memory of the board, as 8GB, where the target has several.")
@common_options
def command(bundle: Path, target: str, memory: int | None, as_json: bool) -> int:
    """Find what keeps BUNDLE from its target, without a GPU and before any build. Exits with 1 if it is blocked."""
    from perceiver_exporters.preflight import check

    report = check(bundle, target, memory)
    code = 1 if report.verdict == "blocked" else 0
    if as_json:
        print_json({"bundle": str(bundle), "verdict": report.verdict, **vars(report)})
        return code
    expected = report.memory
    print_table(
        f"{bundle} for {target}: {report.verdict}; memory estimate: {expected.build_peak / 1e9:.2g} GB to build, "
        f"{expected.run_peak / 1e9:.2g} GB to run",
        ("check:<", "verdict:<", "component:<", "found:<", "remedy:<"),
        [(f.check, f.verdict, f.component, f.message, f.remedy) for f in report.findings],
        f"{len(report.checks)} checks, {len(report.findings)} findings",
    )
    return code
