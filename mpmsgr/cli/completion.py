"""``mpmsgr completion``: the script that makes a shell complete verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from mpmsgr.cli import params
from mpmsgr.config import kinds
from mpmsgr.errors import MessengerError

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", metavar="SHELL", type=params.Value(kinds.Choice(words=SHELLS)))
def command(shell: str) -> None:
    """Print what makes SHELL (bash, zsh, fish) complete mpmsgr's command line.

    For bash: mpmsgr completion bash > ~/.local/share/bash-completion/completions/mpmsgr
    """
    from mpmsgr.cli.main import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise MessengerError(f"click knows no completion for {shell}")
    click.echo(kind(cli, {}, "mpmsgr", "_MPMSGR_COMPLETE").source())
