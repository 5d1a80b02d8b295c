"""``mpmsgr reload``: roll the workers of a running server."""

from __future__ import annotations

import click

from mpmsgr.cli.server import connect, of_server, show


@click.command("reload")
@of_server
def command(run_dir: str | None, config: str | None, timeout_s: float, as_json: bool) -> None:
    """Have a running server read its configuration again and roll its workers, as HUP does.

    Fails where the configuration is wrong; else returns when it has begun, and names the settings
    that have changed and take a restart. `mpmsgr status` and `mpmsgr workers` show how it goes on.
    """
    with connect(run_dir, config, timeout_s) as client:
        done = client.call("reload")
    restart = ", ".join(done["restart_needed"])
    text = "reloading" + (f"; only a restart changes {restart}" if restart else "")
    show(done if as_json else text, as_json)
