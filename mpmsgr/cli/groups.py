"""``mpmsgr groups``: which connections a push reaches."""

from __future__ import annotations

from mpmsgr.cli.server import listing

command = listing("groups", "List the groups of connections that pushes reach.")
