"""``mpmsgr scale``: more workers, or fewer."""

from __future__ import annotations

import click

from mpmsgr.cli import params
from mpmsgr.cli.server import connect, of_server, show
from mpmsgr.config import kinds


@click.command("scale")
@click.argument("workers", metavar="N", type=params.Value(kinds.Whole(low=1, high=1024)))
@of_server
def command(
    workers: int, run_dir: str | None, config: str | None, timeout_s: float, as_json: bool
) -> None:
    """Have a running server use N workers, until its next start.

    As many TTIN or TTOU would do. Returns when it was asked.
    """
    with connect(run_dir, config, timeout_s) as client:
        done = client.call("scale", workers=workers)
    show(done if as_json else f"workers: {done['workers']}, before: {done['before']}", as_json)
