"""Which messages a peer has brought lately, across its sessions (policy `dedupe_window`)."""

from __future__ import annotations

from collections import OrderedDict

from mpmsgr.wire.address import EntityAddr

#: Peers remembered; the one longest silent is forgotten first.
_PEERS = 10_000


class SeenMessages:
    """The tids of each peer's last messages. A peer is its address, the nonce included."""

    def __init__(self) -> None:
        self._peers: OrderedDict[EntityAddr, OrderedDict[int, None]] = OrderedDict()

    def note(self, peer: EntityAddr, tid: int, window: int) -> bool:
        """Remember *tid*, one of the last *window*; True if it was remembered already."""
        tids = self._peers.get(peer)
        if tids is None:
            tids = self._peers[peer] = OrderedDict()
            if len(self._peers) > _PEERS:
                self._peers.popitem(last=False)
        self._peers.move_to_end(peer)
        if tid in tids:
            return True
        tids[tid] = None
        if len(tids) > window:
            tids.popitem(last=False)
        return False
