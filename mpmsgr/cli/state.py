"""``mpmsgr state``: what handlers keep in the I/O process."""

from __future__ import annotations

from mpmsgr.cli.server import listing

command = listing("state", "List the state that handlers keep: by session or key, with its size.")
