"""An endpoint of ours that a real OSD takes for another OSD, driven step by step."""

from __future__ import annotations

import socket
import struct
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Self, TypeVar

from mpmsgr import EntityName, Message
from mpmsgr.session.actions import Flush
from mpmsgr.session.auth import Authenticator, Authorizer, NoAuthentication
from mpmsgr.session.endpoint import Endpoint
from mpmsgr.session.policy import Policies, default_policies
from mpmsgr.session.session import Session, Target
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.authorizer import PROTOCOL_NONE, NoneAuthorizer
from mpmsgr.wire.features import CEPH_PACIFIC
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.name import EntityType
from mpmsgr.wire.v1.frames import CLOSE
from mpmsgr.wire.v1.handshake import BANNER, Connect, HandshakeBuffer, Reply
from mpmsgr.wire.v1.parcel import encode_parcel
from tests.interop.carrier import WAIT_S, Carrier, Link
from tests.support import eventually

T = TypeVar("T")

COMMAND, COMMAND_REPLY = 97, 98
#: An OSD that no cluster of these tests has.
NAME = EntityName(EntityType.OSD, 7)


class Badge(NoAuthentication):
    """Shows everybody the authorizer of protocol "none" that says who *name* is."""

    def __init__(self, name: EntityName = NAME) -> None:
        self._badge = NoneAuthorizer(name.type, str(name.num), 4096 + name.num).encode()

    def get_authorizer(self, peer_type: int, force_new: bool) -> Authorizer:
        """The badge."""
        return Authorizer(PROTOCOL_NONE, self._badge)


def version_command(fsid: uuid.UUID, tid: int = 0) -> Message:
    """Asks an OSD for its version, which it answers at once."""
    words = b'{"prefix": "version"}'
    return Message(COMMAND, fsid.bytes + struct.pack("<II", 1, len(words)) + words, tid=tid)


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A listening socket, any port unless told."""
    return socket.create_server((host, port))


class OsdPeer(Carrier):
    """A session with the OSD at *osd* (its cluster address), and the sockets for it.

    nonce: of its own address, which decides races; listener: where that address is, a new one if
    there is none; the rest: as in `Endpoint`.
    """

    def __init__(
        self,
        osd: EntityAddr,
        fsid: uuid.UUID,
        nonce: int = 1,
        *,
        name: EntityName = NAME,
        listener: socket.socket | None = None,
        authenticator: Authenticator | None = None,
        policies: Policies | None = None,
        protocol_version: int = 0,
    ) -> None:
        listener = listener or listen()
        endpoint = Endpoint(
            name,
            EntityAddr.from_socket(listener.getsockname(), nonce),
            policies or default_policies(EntityType.OSD),
            Random(nonce),
            authenticator=authenticator or Badge(name),
            protocol_version=protocol_version,
        )
        super().__init__(endpoint, listener)
        self.osd, self.fsid = osd, fsid
        self.asked: list[int] = []

    def __exit__(self, *exc: object) -> None:
        """Close, the session as well: an OSD with something to say would call for ever."""
        for link in self.links.values():
            if link.is_open:
                with suppress(OSError):
                    link.socket.sendall(CLOSE)
        super().__exit__(*exc)

    @property
    def session(self) -> Session:
        """The one session that there is."""
        (session,) = self.endpoint.registry
        return session

    def want(self) -> None:
        """Make the endpoint want a connection to the OSD."""
        target = Target(self.osd.host, self.osd.port, self.osd.nonce)
        self.endpoint.connect(target, EntityType.OSD, 0.0)
        self.run()

    def open(self) -> Link:
        """Connect, or connect again, and wait for the end of the handshake."""
        if not self.dials:
            self.want()
        link = self.dial()
        self.until(lambda: link.is_open, "our handshake ends")
        return link

    def open_from(self, caller: socket.socket) -> Link:
        """Let the OSD connect, and wait for the end of the handshake."""
        link = self.answer(caller)
        self.until(lambda: link.is_open, "the OSD's handshake ends")
        return link

    def ask(self, *tids: int) -> None:
        """Send a command for each of *tids*, as soon as there is a connection."""
        self.asked += tids
        asked = [encode_parcel(version_command(self.fsid, tid), self.endpoint.name) for tid in tids]
        self.endpoint.send(self.session, asked, 0.0)
        self.run()

    @property
    def answered(self) -> list[int]:
        """The tids of the answers so far."""
        assert all(m.type == COMMAND_REPLY and b'"16.' in m.data for m in self.messages)
        return [m.tid for m in self.messages]

    def unread(self, link: Link, nbytes: int) -> None:
        """Wait until the OSD has sent so many bytes that nobody has read."""
        peek = partial(link.socket.recv, nbytes, socket.MSG_PEEK)
        eventually(lambda: len(peek()) == nbytes, WAIT_S, "bytes that nobody reads")

    def settle(self, *, acknowledge: bool = True) -> None:
        """Wait until all commands that were not lost are answered and acknowledged.

        acknowledge: the answers, too; otherwise the OSD has something to come back for.
        """
        lost = {tid for event in self.events for tid in event.lost}
        outbox = self.session.outbox
        self.until(lambda: {*self.asked} - lost <= {*self.answered}, "every answer")
        self.until(lambda: not (outbox.queued or outbox.sent), "every ack")
        if acknowledge:
            self.acknowledge()

    def acknowledge(self) -> None:
        """Tell the OSD that its answers arrived; returns when it has read that."""
        assert self.session.pipe is not None
        self.endpoint.emit(Flush(self.session.pipe))
        self.run()
        signs = self.signs_of_life
        self.endpoint.send_keepalive(self.session, 0.0)
        self.until(lambda: self.signs_of_life > signs, "a keepalive behind the acks is answered")

    def part(self, link: Link) -> None:
        """Make the OSD forget the session; we remember it."""
        link.socket.sendall(CLOSE)
        self.until(lambda: link.pipe.closed, "the OSD hangs up")


class Caller:
    """Connects made by hand, in the name of *own*: such as an endpoint would never send."""

    def __init__(self, osd: EntityAddr, own: EntityAddr) -> None:
        self._socket = socket.create_connection((osd.host, osd.port), WAIT_S)
        self._buffer = HandshakeBuffer(Limits())
        self._socket.sendall(BANNER + own.encode())
        self._read(self._buffer.read_banner)
        self._read(self._buffer.read_address)
        self._read(self._buffer.read_address)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._socket.close()

    def propose(self, *, global_seq: int, connect_seq: int) -> Reply:
        """The OSD's answer to a connect with these numbers."""
        badge = Badge().get_authorizer(EntityType.OSD, False)
        numbers = (global_seq, connect_seq, 10)
        connect = Connect(CEPH_PACIFIC, EntityType.OSD, *numbers, badge.protocol, badge.data)
        self._socket.sendall(connect.encode())
        return self._read(self._buffer.read_reply)

    def _read(self, read: Callable[[], T | None]) -> T:
        while (found := read()) is None:
            data = self._socket.recv(4096)
            assert data, "the OSD hung up"
            self._buffer.feed(data)
        return found
