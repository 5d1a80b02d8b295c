"""A peer as handlers and applications see it (dispatch spec §7)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from mpmsgr.errors import SessionReset
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.features import has_feature
from mpmsgr.wire.name import EntityName, type_label


class Connection(ABC):
    """One peer relation. It outlives TCP connections, for lossless policies.

    id: unique among all connections of this service, for pushes from elsewhere; peer_type:
    entity type number; peer_addr: its address; my_addr: ours, as it was told; features:
    negotiated bits, 0 before the first session; priv: the application's own, in this process
    only; last_reset: what the last reset or remote reset dropped.
    """

    id: int
    peer_type: int
    peer_addr: EntityAddr
    my_addr: EntityAddr
    features: int
    priv: Any
    last_reset: SessionReset | None

    @abstractmethod
    def send_message(self, m: Any, data: Bytes = b"") -> bool:
        """Queue a Message, or an instance of a @message class with bulk *data*.

        Never blocks. True: queued, which is not delivered. False: dropped, the session is over.
        Raises OutboxFull where the peer does not keep up and the policy (`outbox_full`) is not
        to drop; replies always pass. ValueError: it is too long for any peer.
        """

    @abstractmethod
    async def send(self, m: Any, data: Bytes = b"") -> bool:
        """The same, but waits for room where the policy is "block"."""

    @abstractmethod
    def mark_down(self) -> None:
        """End the session, without an event on this side."""

    @abstractmethod
    def connection(self, id_: int) -> Connection:
        """Another connection of the same service, by its id: for pushes.

        What is sent to one that is gone is dropped, where that can be known only elsewhere.
        Raises KeyError where it is known here.
        """

    @property
    @abstractmethod
    def is_connected(self) -> bool:
        """Is there an open session right now, as far as is known here?"""

    @property
    def peer_name(self) -> EntityName:
        """The peer's entity; its number is in the `src` of its messages."""
        return EntityName(self.peer_type)

    def has_features(self, mask: int) -> bool:
        """Were all bits of *mask* negotiated?"""
        return has_feature(self.features, mask)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {type_label(self.peer_type)} {self.peer_addr}>"
