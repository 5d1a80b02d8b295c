"""``mpmsgr sessions``: who is connected, and what waits for whom."""

from __future__ import annotations

from typing import Any

import click

from mpmsgr.cli import params
from mpmsgr.cli.server import connect, of_server, show
from mpmsgr.config import kinds

_COLUMNS = {
    "id": "ID",
    "peer_type": "TYPE",
    "peer": "PEER",
    "state": "STATE",
    "policy": "POLICY",
    "in_seq": "IN",
    "out_seq": "OUT",
    "queued": "QUEUED",
    "unacked": "UNACKED",
    "outbox_bytes": "OUTBOX",
    "paused": "PAUSED",
    "age_s": "AGE",
    "silent_s": "SILENT",
}
_TCP = {
    "rtt_us": "RTT_US",
    "retransmits_total": "RETRANS",
    "received_bytes": "RECEIVED",
    "acked_bytes": "SENT",
}
_SORTS = params.choice("outbox", "traffic", "silence", "age")
_STATES = params.choice("connecting", "open", "standby", "wait")
_LIMIT = params.Value(kinds.Whole(low=1))


@click.command("sessions")
@click.option("--sort", **_SORTS, help="Order by this, the most first.")
@click.option("--limit", type=_LIMIT, metavar="N", help="Not more than N.")
@click.option("--state", **_STATES, help="Only those in this state.")
@click.option(
    "--peer-type", metavar="T", type=params.PEER_TYPE, help="Only those of peers of this type."
)
@click.option("--tcp", is_flag=True, help="With what the kernel says of their connections.")
@of_server
def command(
    run_dir: str | None, config: str | None, timeout_s: float, as_json: bool, **args: Any
) -> None:
    """List the sessions of a running server.

    IN and OUT are sequence numbers; QUEUED was not sent yet, UNACKED was, and is kept for a
    resend; OUTBOX is the bytes of both. SILENT is how long nothing was heard.
    """
    with connect(run_dir, config, timeout_s) as client:
        rows = client.call("sessions", **args)
    if args["tcp"] and not as_json:
        rows = [row | row["tcp"] for row in rows]
    show(rows, as_json, _COLUMNS | (_TCP if args["tcp"] else {}))
