"""`perceiver-export inspect`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.output import json_option, print_json, print_table


@click.command("inspect")
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def command(bundle: Path, as_json: bool) -> None:
    """Show what BUNDLE holds, after checking every file's size and hash."""
    from perceiver_runtime import load_bundle

    manifest = load_bundle(bundle).manifest
    if as_json:
        return print_json(manifest)
    steps = {step.component: step for step in manifest.pipeline.steps}
    rows = [
        (
            c.name,
            c.precision,
            str(steps[c.name].repeat) if c.name in steps else "",
            f"{c.parameters:,}",
            f"{c.flops / 1e9:.4g}",
            "\n".join(map(str, c.inputs)),
            "\n".join(map(str, c.outputs)),
        )
        for c in manifest.components
    ]
    weights = "trained" if manifest.source.pretrained else "RANDOM weights"
    total = sum(f.size for f in manifest.files.values()) / 1e6
    return print_table(
        f"{bundle}: {manifest.source.name} ({manifest.source.family}, {weights}), {manifest.precision} for "
        f"{manifest.target}, opset {manifest.opset}, {len(manifest.files)} files, {total:.2f} MB",
        ("component:<", "precision:<", "repeat", "parameters", "GFLOP", "inputs:<", "outputs:<"),
        rows,
    )
