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
    does not answer. sessions_refused: because of max_sessions or by a lame duck, since the I/O
    process began.
    """
    with connect(run_dir, config, timeout_s) as client:
        show(client.call("status") | _sessions(client), as_json)


def _sessions(client: AdminClient) -> dict[str, Any]:
    """Sessions by state, how many may be, how many were refused.

    All None while the I/O process is away or stuck.
    """
    try:
        perf = client.ask("perf")
    except AdminError:
        perf = None
    if perf is None:
        return dict.fromkeys(("sessions", "max_sessions", "sessions_refused"))
    told = perf["messenger"]
    return {
        "sessions": told["sessions"],
        "max_sessions": told["max_sessions"] or None,
        "sessions_refused": sum(told["sessions_refused_total"].values()),
    }
