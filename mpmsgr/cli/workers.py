"""``mpmsgr workers``: the worker processes and what they do."""

from __future__ import annotations

import click

from mpmsgr.admin.client import worker_rows
from mpmsgr.admin.text import running_text
from mpmsgr.cli.server import connect, of_server, show

_COLUMNS = {
    "slot": "SLOT",
    "pid": "PID",
    "generation": "GENERATION",
    "duty": "DUTY",
    "phase": "PHASE",
    "since_s": "SINCE",
    "handled": "HANDLED",
    "failed": "FAILED",
    "held": "HELD",
    "running": "RUNNING",
    "rss_bytes": "RSS",
    "cpu_s": "CPU",
    "cause": "LAST DEATH",
}


@click.command("workers")
@of_server
def command(run_dir: str | None, config: str | None, timeout_s: float, as_json: bool) -> None:
    """List the workers of a running server, what each holds and what it runs for how long."""
    with connect(run_dir, config, timeout_s) as client:
        rows = worker_rows(client)
    if not as_json:
        rows = [row | {"running": running_text(row.get("running"))} for row in rows]
    show(rows, as_json, _COLUMNS)
