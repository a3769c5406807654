"""The command group: commands are imported when they are called, errors become documented exit codes."""

from __future__ import annotations

import importlib
import sys
import traceback

import click

from perceiver_runtime.errors import PerceiverError

COMMANDS = {
    "models": "list the models of the zoo and the families they belong to",
    "export": "export a model or checkpoint to a bundle",
    "verify": "compare a bundle with its golden samples",
    "bisect": "find the component, then the node, where a bundle departs from its source",
    "replay": "run again what verify or bisect wrote of a failure",
    "growth": "measure and draw how the error grows over repeated blocks",
    "evaluate": "measure a bundle's task metrics beside the reference's",
    "check": "find what keeps a bundle from a device, before any build",
    "build": "add TensorRT engines to a bundle, or make a kit that builds them on the device",
    "bench": "measure a bundle's latency beside PyTorch's",
    "inspect": "show what a bundle holds",
    "demo": "export, verify, evaluate and time the shipped model at every precision",
    "doctor": "show what this machine can export, build and run",
}
INTERNAL_ERROR = 70  # EX_SOFTWARE: a defect of ours, never a verdict on the user's bundle

EPILOG = """Exit codes: 0 everything held; 1 a check failed (parity, accuracy, precision); 2 wrong usage; 3 a bad input
file, checkpoint or bundle; 4 something needed is not on this machine; 70 an internal error."""


class LazyGroup(click.Group):
    """Imports `perceiver_deploy.cli.<command>` on use: `--help` must not wait for torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of a user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"perceiver_deploy.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List commands from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(cls=LazyGroup, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="perceiver-deploy")
def group() -> None:
    """Take a Perceiver from PyTorch to the edge: ONNX per component, FP16 or INT8, a bundle that proves its parity."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its documented code."""
    try:
        code = group.main(arguments, prog_name="perceiver-export", standalone_mode=False)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(130)
    except PerceiverError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except Exception:
        traceback.print_exc()
        click.echo("error: this is a defect of perceiver-export; please report it with the lines above", err=True)
        sys.exit(INTERNAL_ERROR)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
