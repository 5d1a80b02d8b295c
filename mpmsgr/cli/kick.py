"""``mpmsgr kick``: end one session."""

from __future__ import annotations

import click

from mpmsgr.cli import params
from mpmsgr.cli.server import connect, of_server, show
from mpmsgr.config import kinds


@click.command("kick")
@click.argument("session", metavar="SESSION", type=params.Value(kinds.Whole()))
@of_server
def command(
    session: int, run_dir: str | None, config: str | None, timeout_s: float, as_json: bool
) -> None:
    """End the session with id SESSION (see `mpmsgr sessions`).

    Its peer is told, what waits for it is dropped, handlers get handle_reset. The peer may open
    another session at once.
    """
    with connect(run_dir, config, timeout_s) as client:
        done = client.call("kick", id=session)
    text = f"session {session} with {done['peer']} ended, {done['dropped']} messages dropped"
    show(done if as_json else text, as_json)
