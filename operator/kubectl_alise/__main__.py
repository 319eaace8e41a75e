"""The programs `kubectl-alise`, which kubectl runs for `kubectl alise`, and `kubectl_complete-alise`, which it asks for completions."""

import sys
from collections.abc import Sequence

import click
from click.shell_completion import ShellComplete

from .cli import cli
from .errors import PluginError
from .tables import printable

_PROGRAM = "kubectl alise"
# Cobra's directive that says: complete with nothing else, for example no file names.
_NO_FILES = ":4"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns the exit status: 0, 1 if it failed, 2 for a mistake on the command line."""
    try:
        cli.main(None if arguments is None else list(arguments), prog_name=_PROGRAM, standalone_mode=False)
    except PluginError as error:
        click.echo(printable(f"{_PROGRAM}: {error}"), err=True)
        return 1
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return 130
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def complete(arguments: Sequence[str] | None = None) -> int:
    """Prints what can follow the words that were typed after `kubectl alise`, as kubectl 1.26 and newer ask for it. Returns 0."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    done, incomplete = words[:-1], words[-1] if words else ""
    for item in ShellComplete(cli, {}, _PROGRAM, "_KUBECTL_ALISE_COMPLETE").get_completions(done, incomplete):
        click.echo(f"{item.value}\t{item.help}" if item.help else str(item.value))
    click.echo(_NO_FILES)
    return 0


if __name__ == "__main__":
    sys.exit(main())
