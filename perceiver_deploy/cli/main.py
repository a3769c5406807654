"""The command group: commands are imported when they are called, errors become documented exit codes."""

from __future__ import annotations

import importlib
import sys

import click

from perceiver_deploy.cli.output import echo
from perceiver_runtime.cli.exits import run_program
from perceiver_runtime.errors import UsageError
from perceiver_runtime.suggest import did_you_mean

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
    "advise": "find the precision and backend that are fastest within your limits",
    "tune": "measure what runs a bundle fastest on this machine, and record it",
    "report": "write one page about bundles: speed, accuracy, parity, and how each was measured",
    "inspect": "show what a bundle holds",
    "sign": "sign a bundle, so that devices can refuse all others",
    "boards": "import the self-tests of boards beside their forecasts, and list them",
    "trtexec": "print the trtexec commands of a bundle, or show what they measured",
    "demo": "export the shipped model at three precisions, and write the report about them",
    "doctor": "show what this machine can export, build and run",
}

EPILOG = """Exit codes: 0 all checks passed; 1 a check failed (parity, accuracy, precision); 2 wrong usage; 3 a bad
input file, checkpoint or bundle; 4 something needed is not on this machine (also space, permission, memory); 70 an
internal error; 130 interrupted; 141 the reader of the output closed it."""


class LazyGroup(click.Group):
    """Imports `perceiver_deploy.cli.<command>` on use: `--help` must not wait for torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of a user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in COMMANDS:
            names = ", ".join(COMMANDS)
            ctx.fail(f"expected a command of {names}, got {cmd_name!r:.40}{did_you_mean(cmd_name, COMMANDS)}")
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
    given = sys.argv[1:] if arguments is None else arguments
    sys.exit(run_program("perceiver-export", "error", lambda: _call(given), as_json="--json" in given))


def _call(arguments: list[str]) -> int:
    """Click's ways out as those of `run_program`. `group.main` would end a closed pipe with 1: a failed check here."""
    try:
        with group.make_context("perceiver-export", list(arguments)) as context:
            code = group.invoke(context)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        if (used := getattr(error, "ctx", None)) is not None:
            echo(used.get_usage(), err=True)
        raise UsageError(_message(error)) from error
    return code if isinstance(code, int) else 0


def _message(error: click.ClickException) -> str:
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help; click has it since 8.2
        return "expected a command; --help lists them"
    return error.format_message()


if __name__ == "__main__":
    main()
