"""``mpmsgr workers``: the worker processes and what they do."""

from __future__ import annotations

from typing import Any

import click

from mpmsgr.admin.client import AdminClient
from mpmsgr.admin.text import running_text
from mpmsgr.cli.server import connect, of_server, show
from mpmsgr.errors import AdminError

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


def worker_rows(client: AdminClient) -> list[dict[str, Any]]:
    """What the supervisor knows of each worker, and what the I/O process does, if it answers."""
    rows: list[dict[str, Any]] = client.call("workers")
    try:
        loads = client.ask("load") or []
    except AdminError:
        loads = []
    by_worker = {(load["slot"], load["generation"]): load for load in loads}
    return [row | by_worker.get((row["slot"], row["generation"]), {}) for row in rows]
