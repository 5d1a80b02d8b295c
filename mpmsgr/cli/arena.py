"""``mpmsgr arena``: the shared memory of payloads."""

from __future__ import annotations

import click

from mpmsgr.admin.text import table
from mpmsgr.cli.server import connect, of_server, show


@click.command("arena")
@of_server
def command(run_dir: str | None, config: str | None, timeout_s: float, as_json: bool) -> None:
    """Show the shared memory of a running server: slots, leases, what is in use.

    A lease is a payload that a worker looks at although its message is handled.
    """
    with connect(run_dir, config, timeout_s) as client:
        said = client.call("arena")
    if as_json:
        show(said, True)
    else:
        click.echo(table(said["arenas"]))
        if said["leases"]:
            click.echo("\n" + table(said["leases"]))
