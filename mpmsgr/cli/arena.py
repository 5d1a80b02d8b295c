"""``mpmsgr arena``: the shared memory of payloads."""

from __future__ import annotations

from mpmsgr.cli.server import listing

command = listing(
    "arena", "Show the shared memory of a running server: slots, leases, what is in use."
)
