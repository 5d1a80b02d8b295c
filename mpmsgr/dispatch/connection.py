"""A peer as handlers and applications see it (dispatch spec §7)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any

from mpmsgr.dispatch.group import Group
from mpmsgr.dispatch.invocation import Invocation
from mpmsgr.dispatch.state import StateError
from mpmsgr.errors import HandlerError, SessionReset
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.features import has_feature
from mpmsgr.wire.message import Message
from mpmsgr.wire.name import EntityName, parse_type, type_label


class Connection(ABC):
    """One peer relation. It outlives TCP connections, for lossless policies.

    id: unique among all connections of this service, for pushes from elsewhere; peer_type:
    entity type number; peer_addr: its address; my_addr: ours, as it was told; features:
    negotiated bits, 0 before the first session, kept while there is no connection; priv: the
    application's own, in this process only; last_keepalive: when the peer last asked for a sign of
    life, last_keepalive_ack: the stamp it last returned, both in seconds of `Messenger.now` and
    known in the process that has the sockets, else None; last_reset: what the last reset or remote
    reset dropped; state_limit: bytes of a state.

    What a handler sends is held until it completes, and dropped if it fails; only `request`, and
    handlers declared with streaming=True, send at once.
    """

    id: int
    peer_type: int
    peer_addr: EntityAddr
    my_addr: EntityAddr
    features: int
    priv: Any
    last_keepalive: float | None = None
    last_keepalive_ack: float | None = None
    last_reset: SessionReset | None
    state_limit: int = 1 << 16

    @abstractmethod
    def send_message(self, m: Any, data: Bytes = b"") -> bool:
        """Queue a Message, or an instance of a @message class with bulk *data*.

        Never blocks. True: queued, which is not delivered. False: dropped, the session is over; a
        worker knows that only of connections whose messages it gets, others: see `send`.
        Raises OutboxFull where the peer does not keep up and the policy (`outbox_full`) is not
        to drop; replies always pass. ValueError: it is too long for any peer.
        """

    @abstractmethod
    async def send(self, m: Any, data: Bytes = b"") -> bool:
        """The same, but waits for room where the policy is "block".

        In a worker, to a connection whose messages go elsewhere (`connection`): waits until it is
        known whether the session is there, and does not wait for room. Like all it sends, what an
        async handler sends so leaves when it completes, if the session was there when asked for.
        """

    @abstractmethod
    def mark_down(self) -> None:
        """End the session, without an event on this side; its messages may still be dispatched."""

    @abstractmethod
    def mark_disposable(self) -> None:
        """Make the session lossy: the next fault is final."""

    @abstractmethod
    def send_keepalive(self) -> None:
        """Ask the peer for a sign of life; wakes a parked session."""

    @abstractmethod
    def connection(self, id_: int) -> Connection:
        """Another connection of the same service, by its id: for pushes.

        There is one for every number. What is sent to a session that is gone is dropped:
        `await con.connection(id).send(m)` tells by False.
        """

    @abstractmethod
    def group(self, name: str) -> Group:
        """The group of connections with *name*: this one joins, leaves, or sends to all."""

    @property
    def state(self) -> dict[Any, Any]:
        """What the service keeps for this session, or for the key of a handler that has one.

        To be read and changed by the handler that runs: the change is committed together with what
        it sends, and undone if it fails. Values are what msgpack can hold. Raises StateError
        anywhere else.
        """
        run = self._current()
        if run is None or run.done or run.con is not self:
            raise StateError("state", "is there only for the handler of a message, while it runs")
        if run.handling.ordering == "none":
            raise StateError("state", "is not there for messages without an order")
        if run.state is None:
            run.state = run.lane.state_of(self.state_limit)
            run.plain = False
        return run.state.value

    def allocate(self, nbytes: int) -> memoryview:
        """Memory for bulk data that is to be sent: write it, then give it as *data*.

        Sent from where it was written, where it can be: it must not be written to any more, and
        the view cannot be used again. Raises HandlerError where the handler holds too much.
        """
        return memoryview(bytearray(nbytes))

    def request(
        self, m: Any, data: Bytes = b"", *, timeout: float | None = None
    ) -> Coroutine[Any, Any, Any]:
        """Send a message, at once, and return its reply: for an object of a @message class the
        reply's value, for a Message the reply Message.

        Raises RequestTimeout after *timeout* seconds, RemoteError for an error reply, SessionReset
        when the session is lost before the reply; HandlerError in a handler that is not async,
        which would wait for itself.
        """
        run = self._current()
        if run is not None and not (run.done or run.is_async):
            raise HandlerError("request", "needs an async handler: a plain one cannot wait")
        return self._request(m, data, timeout)

    @abstractmethod
    def _current(self) -> Invocation | None:
        """The callback that runs, of whatever connection."""

    @abstractmethod
    async def _request(self, m: Any, data: Bytes, timeout: float | None) -> Any: ...

    @property
    @abstractmethod
    def is_connected(self) -> bool:
        """Is there an open session right now, as far as is known here?"""

    @property
    @abstractmethod
    def failed(self) -> bool:
        """Is the session over for good, as far as is known here? All later sends are dropped."""

    def awaits(self, m: Message) -> bool:
        """Is *m* the reply to a request, or for a stream, of this connection?"""
        return False

    @property
    def peer_name(self) -> EntityName:
        """The peer's entity; its number is in the `src` of its messages."""
        return EntityName(self.peer_type)

    def peer_is(self, type_: int | str) -> bool:
        """Is the peer of this entity type: its number, or its name (``"osd"``)?"""
        return self.peer_type == (parse_type(type_) if isinstance(type_, str) else type_)

    def has_feature(self, mask: int) -> bool:
        """Was any bit of *mask* negotiated?"""
        return bool(self.features & mask)

    def has_features(self, mask: int) -> bool:
        """Were all bits of *mask* negotiated?"""
        return has_feature(self.features, mask)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {type_label(self.peer_type)} {self.peer_addr}>"
