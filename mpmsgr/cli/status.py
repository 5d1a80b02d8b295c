"""``mpmsgr status``: a running server in a dozen facts."""

from __future__ import annotations

from typing import Any

import click

from mpmsgr.admin.client import AdminClient
from mpmsgr.cli.server import connect, of_server, show
from mpmsgr.errors import AdminError


@click.command("status")
@of_server
def command(run_dir: str | None, config: str | None, timeout_s: float, as_json: bool) -> None:
    """Print the state of a running server: processes, addresses, sessions.

    state is starting, serving, degraded or stopping; sessions are missing when the I/O process
    does not answer.
    """
    with connect(run_dir, config, timeout_s) as client:
        show(client.call("status") | {"sessions": _sessions(client)}, as_json)


def _sessions(client: AdminClient) -> Any:
    """Sessions by state; None while the I/O process is away or stuck."""
    try:
        perf = client.ask("perf")
    except AdminError:
        return None
    return None if perf is None else perf["messenger"]["sessions"]
