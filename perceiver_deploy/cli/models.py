"""`perceiver-export models`."""

from __future__ import annotations

import click

from perceiver_deploy.cli.output import json_option, print_json, print_table


@click.command("models")
@json_option
def command(as_json: bool) -> None:
    """List the models of the zoo: family, size, inputs and outputs, GFLOP per component at batch 1."""
    from perceiver_deploy.api.models import models

    rows = models()
    if as_json:
        return print_json(rows)
    columns = ("name:<", "family:<", "weights:<", "parameters", "GFLOP", "inputs:<", "latents:<", "outputs:<")
    return print_table(
        "Models",
        columns,
        [
            (
                m.name,
                m.family,
                "shipped" if m.pretrained else "from a checkpoint",
                f"{m.parameters:,}",
                "\n".join(f"{component} {gflop:.3g}" for component, gflop in m.gflop.items()),
                "\n".join(m.inputs),
                "\n".join(m.latents),
                "\n".join(m.outputs),
            )
            for m in rows
        ],
    )
