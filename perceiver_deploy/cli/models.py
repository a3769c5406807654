"""`perceiver-export models`."""

from __future__ import annotations

import click

from perceiver_deploy.cli.output import common_options, print_json, print_table

COLUMNS = ("name:<", "family:<", "weights:<", "params", "GFLOP", "inputs:<?", "latents:<?", "outputs:<?")


@click.command("models")
@common_options
def command(as_json: bool) -> None:
    """List the models of the zoo: family, size, GFLOP per component at batch 1, inputs and outputs."""
    from perceiver_deploy.api.models import list_models
    from perceiver_runtime.cli.report import amount, weights

    found = list_models()
    if as_json:
        return print_json(found)
    rows = [
        (
            m.name,
            m.family,
            weights(m.pretrained),
            amount(m.parameters),
            amount(sum(m.gflop.values()) * 1e9, "G"),
            m.inputs,
            m.latents,
            m.outputs,
        )
        for m in found
    ]
    return print_table("Models of the zoo", COLUMNS, rows)
