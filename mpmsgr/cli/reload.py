"""``mpmsgr reload``: roll the workers of a running server."""

from __future__ import annotations

import click

from mpmsgr.cli.server import connect, of_server, show


@click.command("reload")
@of_server
def command(run_dir: str | None, config: str | None, timeout_s: float, as_json: bool) -> None:
    """Have a running server read its configuration again and roll its workers, as HUP does.

    Returns when it was asked; `mpmsgr workers` shows the new generations.
    """
    with connect(run_dir, config, timeout_s) as client:
        done = client.call("reload")
    show(done if as_json else f"asked for: {done['asked']}", as_json)
