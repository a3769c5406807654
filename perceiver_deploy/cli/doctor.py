"""`perceiver-export doctor`."""

from __future__ import annotations

import click

from perceiver_deploy.cli.output import common_options, print_json, print_table


@click.command("doctor")
@common_options
def command(as_json: bool) -> int:
    """Show what this machine can export, build and run. Exit 4 if it can't export and verify."""
    from perceiver_deploy.api.doctor import diagnose

    diagnosis = diagnose()
    if as_json:
        print_json({"ok": diagnosis.ok, "findings": diagnosis.findings})
    else:
        print_table(
            "This machine",
            ("what:<", "found:<", "verdict:<"),
            [(f.name, f.value, _verdict(f.ok, f.needed)) for f in diagnosis.findings],
            "\n".join(f"{f.name}: {f.remedy}" for f in diagnosis.findings if f.remedy),
        )
    return 0 if diagnosis.ok else 4


def _verdict(ok: bool, needed: bool) -> str:
    if ok:
        return "ok"
    return "MISSING" if needed else "optional"
