"""Which messages a peer has brought lately, across its sessions (policy `dedupe_window`)."""

from __future__ import annotations

from collections import OrderedDict

from mpmsgr.session.handled import Work
from mpmsgr.wire.address import EntityAddr

#: Peers remembered; the one longest silent is forgotten first.
_PEERS = 10_000


class SeenMessages:
    """The tids of each peer's last messages. A peer is its address, the nonce included."""

    def __init__(self) -> None:
        self._peers: OrderedDict[EntityAddr, OrderedDict[int, Work | None]] = OrderedDict()

    def note(self, peer: EntityAddr, tid: int, window: int, work: Work | None = None) -> bool:
        """Remember *tid*, one of the last *window*; True if it was remembered already.

        work: what it is, where that is of interest later: see `work`.
        """
        tids = self._peers.get(peer)
        if tids is None:
            tids = self._peers[peer] = OrderedDict()
            if len(self._peers) > _PEERS:
                self._peers.popitem(last=False)
        self._peers.move_to_end(peer)
        if tid in tids:
            return True
        tids[tid] = work
        if len(tids) > window:
            tids.popitem(last=False)
        return False

    def work(self, peer: EntityAddr, tid: int) -> Work | None:
        """What was noted with *tid* of *peer* when it came for the first time."""
        return self._peers[peer][tid]
