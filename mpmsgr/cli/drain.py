"""``mpmsgr drain``: stop a running server in order, or have it take no new sessions."""

from __future__ import annotations

import click

from mpmsgr.cli.server import connect, of_server, show


@click.command("drain")
@click.option("--lame-duck", is_flag=True, help="Keep the sessions there are; only take no more.")
@of_server
def command(
    lame_duck: bool, run_dir: str | None, config: str | None, timeout_s: float, as_json: bool
) -> None:
    """Stop a running server as TERM does: finish what is in work, then end.

    Returns when it was asked. With --lame-duck it acts as on USR2 instead.
    """
    with connect(run_dir, config, timeout_s) as client:
        done = client.call("lame_duck" if lame_duck else "drain")
    show(done if as_json else f"asked for: {done['asked']}", as_json)
