"""Sends every message back: the smallest dispatcher, and the load generator's peer."""

from __future__ import annotations

from mpmsgr import Connection, Dispatcher, Message

ECHO = 0x8001


class Echo(Dispatcher):
    """Sends every ECHO back: type, tid and all three parts as they came."""

    message_types = frozenset({ECHO})

    def dispatch(self, con: Connection, m: Message) -> bool | None:
        """Answer one message with itself."""
        con.send_message(m.reply(front=m.front, middle=m.middle, data=m.data))
        return None


class FastEcho(Echo):
    """The same in the I/O process, without a worker: for ``--io-module``."""

    def can_fast_dispatch_any(self) -> bool:
        """Yes."""
        return True

    def fast_dispatch(self, con: Connection, m: Message) -> None:
        """Answer one message with itself."""
        con.send_message(m.reply(front=m.front, middle=m.middle, data=m.data))
