"""``mpmsgr perf dump``: every counter of a running server."""

from __future__ import annotations

from typing import Any

import click

from mpmsgr.cli.server import connect, of_server, show
from mpmsgr.cli.verbs import Verbs


@click.group("perf", cls=Verbs, no_args_is_help=False, subcommand_metavar="dump")
def command() -> None:
    """Print the counters of a running server."""


@command.command("dump")
@of_server
def dump(as_json: bool, **which: Any) -> None:
    """Print every counter, by section.

    Names that end in _total have only grown since the process they are of was started.
    """
    with connect(**which) as client:
        counters = client.call("perf", own=True) | (client.ask("perf") or {})
    show(counters, as_json)
