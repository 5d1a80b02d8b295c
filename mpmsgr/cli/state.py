"""``mpmsgr state``: what handlers keep in the I/O process."""

from __future__ import annotations

import click

from mpmsgr.cli.server import connect, of_server, show


@click.command("state")
@click.argument("of", metavar="[ADDR|KEY]", required=False)
@of_server
def command(
    of: str | None, run_dir: str | None, config: str | None, timeout_s: float, as_json: bool
) -> None:
    """List the state that handlers keep, by session or key, with its size.

    With the address of a peer (HOST:PORT), the value of a key, or what the column "of" or "id"
    says: its content.
    """
    with connect(run_dir, config, timeout_s) as client:
        rows = client.call("state") if of is None else client.call("state", of=of)
    show(rows, as_json)
