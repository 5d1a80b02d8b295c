"""Questions that only the I/O process can answer: who asked, and what has come so far."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mpmsgr.admin.server import Reply
from mpmsgr.control import Packet
from mpmsgr.errors import ProtocolError
from mpmsgr.supervisor.child import Phase, Slot
from mpmsgr.supervisor.companion import Companion
from mpmsgr.supervisor.supervisor import Supervisor


class Inquiries(Companion):
    """Passes questions to the I/O process of *supervisor*, and its answers on; see `inspect`."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._replies: dict[int, Reply] = {}
        self._last = 0

    def ask(self, what: str, args: Mapping[str, Any], reply: Reply) -> None:
        """Have *reply* given by the I/O process."""
        if self._supervisor.facts.io.phase is not Phase.READY:
            reply.fail("unavailable", "the I/O process is not up")
            return
        self._forget_the_gone()
        self._last += 1
        try:
            self._supervisor.children.send(None, "query", id=self._last, what=what, args=dict(args))
        except (ProtocolError, TypeError, ValueError, OverflowError) as exc:
            reply.fail("request", f"cannot be asked: {exc}")
            return
        self._replies[self._last] = reply

    def told(self, slot: Slot, packet: Packet) -> None:
        """An ``answer`` came, or a piece of one."""
        if packet["op"] != "answer":
            return
        id_ = packet["id"]
        if packet["more"]:
            reply = self._replies.get(id_)
            if reply is not None:
                reply.piece(packet["value"])
            return
        reply = self._replies.pop(id_, None)
        if reply is None:
            return
        if "error" in packet:
            reply.fail(packet["kind"], packet["error"])
        else:
            reply.end(packet["value"])

    def ended(self, slot: Slot) -> None:
        """The I/O process will not answer any more, if it was that."""
        if slot is None:
            replies, self._replies = self._replies, {}
            for reply in replies.values():
                reply.fail("unavailable", "the I/O process ended before it answered")

    def _forget_the_gone(self) -> None:
        self._replies = {id_: reply for id_, reply in self._replies.items() if reply.is_wanted}
