"""``mpmsgr lanes``: what waits for which worker."""

from __future__ import annotations

from mpmsgr.cli.server import listing

command = listing(
    "lanes", "List the lanes of a running server that have something in work or waiting."
)
