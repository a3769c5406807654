"""`perceiver-export sign`."""

from __future__ import annotations

from pathlib import Path

import click

from perceiver_deploy.cli.output import common_options, echo, print_json


@click.command("sign")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--key", required=True, type=click.Path(path_type=Path), help="Ed25519 private key, PKCS#8 in PEM, no password."
)
@common_options
def command(bundle: Path, key: Path, as_json: bool) -> None:
    """Check BUNDLE whole, and put a signature of its digest into it.

    Devices refuse all other bundles with `--require-signature`. Building engines removes a signature: sign again.
    """
    from perceiver_runtime.signing import sign_bundle

    signed = sign_bundle(bundle, key)
    if as_json:
        return print_json(signed)
    return echo(str(signed))
