"""``mpmsgr throttles``: what bounds the messages in work, and how full it is."""

from __future__ import annotations

from mpmsgr.cli.server import listing

command = listing(
    "throttles",
    "List the throttles of a running server: what each counts, its limit, how full it is.",
)
