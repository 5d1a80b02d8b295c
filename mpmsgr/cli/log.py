"""``mpmsgr log``: what a running server logs, and where."""

from __future__ import annotations

from typing import Any

import click

from mpmsgr.cli import params
from mpmsgr.cli.server import connect, of_server, show
from mpmsgr.cli.verbs import Verbs
from mpmsgr.config.settings import BY_NAME

_LEVEL = BY_NAME["log_level"].kind


@click.group("log", cls=Verbs, no_args_is_help=False, subcommand_metavar="level|reopen")
def command() -> None:
    """Change what a running server logs."""


@command.command("level")
@click.argument("level", metavar="LEVEL", type=params.Value(_LEVEL))
@of_server
def level(level: str, as_json: bool, **which: Any) -> None:
    """Write lines of LEVEL and above from now on: debug, info, warning or error."""
    with connect(**which) as client:
        done = client.call("log_level", level=level)
    show(done if as_json else f"log_level = {done['value']}", as_json)


@command.command("reopen")
@of_server
def reopen(as_json: bool, **which: Any) -> None:
    """Go on in a new log file where the present one was moved away."""
    with connect(**which) as client:
        show(client.call("log_reopen"), as_json)
