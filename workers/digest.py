"""Hashes and compresses payloads: a CPU-bound handler that shows all cores at work."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any

import msgpack

from mpmsgr import Connection, Dispatcher, Message
from mpmsgr.errors import ConfigError
from mpmsgr.wire.crc import Bytes

DIGEST = 0x8002


def digest(data: Bytes, rounds: int, level: int) -> dict[str, Any]:
    """Hash and compress *data*, *rounds* times over.

    ``sha256`` is a hex chain: each round hashes the previous round's digest (none at first) and
    then *data*, so one round gives the plain sha256 of *data*. ``compressed`` is its size in
    bytes after zlib at *level*, ``rounds`` the work done.
    """
    link, compressed = b"", 0
    for _ in range(rounds):
        chain = hashlib.sha256(link)
        chain.update(data)
        link = chain.digest()
        compressed = len(zlib.compress(data, level))
    return {"sha256": link.hex(), "compressed": compressed, "rounds": rounds}


class Digest(Dispatcher):
    """Answers a DIGEST: front a msgpack map as `digest` returns it, middle the request's front.

    The front of a request is the sender's own and opaque here; it comes back untouched so that
    the sender can tell its replies apart.
    """

    message_types = frozenset({DIGEST})

    def __init__(self, rounds: int = 1, level: int = 6) -> None:
        """*rounds* of work per message, 1 or more; *level* of zlib, 0 to 9."""
        _check("rounds", rounds, 1, 1 << 20)
        _check("level", level, 0, 9)
        self.rounds, self.level = rounds, level

    def dispatch(self, con: Connection, m: Message) -> bool | None:
        """Answer one message."""
        front = msgpack.packb(digest(m.data, self.rounds, self.level))
        con.send_message(m.reply(front=front, middle=m.front))
        return None


def _check(option: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ConfigError(f"workers.digest: {option}", value, f"a number from {low} to {high}")
