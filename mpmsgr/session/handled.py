"""How far a session's messages are handled (policy ``ack = "handled"``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mpmsgr.session.session import Session


class Work(NamedTuple):
    """Message *seq* of the session in which *prefix* counts, or did."""

    prefix: HandledPrefix
    seq: int


class HandledPrefix:
    """Handlers complete in any order; what is announced to the peer is cumulative.

    prefix: the seq up to which everything was handled, the one before the oldest in work. Not the
    last that was handled: a peer goes on numbering after what it is told, and where it has left
    numbers out, it would give the numbers of messages in work to others.
    repeats: by seq, what a newer session of the peer brought again while it was in work; it is
    handled when the first one is.
    What is kept is bounded by what is in work, and next to nothing if that ends in order.
    """

    __slots__ = ("_after_gap", "_early", "_last", "prefix", "repeats")

    def __init__(self, prefix: int = 0) -> None:
        self.prefix = prefix
        self._last = prefix  # that arrived
        self._early: set[int] = set()  # handled before an older one was
        self._after_gap: dict[int, int] = {}  # the next that arrived, where it is not seq + 1
        self.repeats: dict[int, tuple[Session, Work]] = {}

    def arrived(self, seq: int) -> None:
        """Message *seq*, above all before it, is in work."""
        if self.prefix == self._last:
            self.prefix = seq - 1
        elif seq != self._last + 1:
            self._after_gap[self._last] = seq
        self._last = seq

    def in_work(self, seq: int) -> bool:
        """Is message *seq*, which arrived once, not handled yet?"""
        return self.prefix < seq and seq not in self._early

    def handled(self, seq: int) -> bool:
        """Message *seq* was handled, or never will be; True: the prefix has moved.

        Of a message that is not in work it means nothing.
        """
        if not self.prefix < seq <= self._last:
            return False
        if seq != self.prefix + 1:
            self._early.add(seq)
            return False
        self._advance(seq)
        return True

    def _advance(self, seq: int) -> None:
        """*seq*, the oldest in work, is handled, and maybe others that waited for it."""
        while seq != self._last:
            seq = self._after_gap.pop(seq, seq + 1)
            if seq not in self._early:
                self.prefix = seq - 1
                return
            self._early.remove(seq)
        self.prefix = seq
        self._early.clear()  # an emptied set keeps its memory
