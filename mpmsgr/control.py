"""The control channel between the supervisor and a child: one msgpack map per packet.

A Unix SOCK_SEQPACKET socket pair: packets keep their bounds, and the end of either process is seen
by the other one as end of file. Each packet is a map with the key ``op``. The supervisor's packets
may carry file descriptors (SCM_RIGHTS); their number is in the map, so that none can get lost or
come uncalled for.
"""

from __future__ import annotations

import os
import select
import socket
from array import array
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import msgpack

from mpmsgr.errors import ProtocolError

MAX_PACKET_BYTES = 1 << 16  # a third of the default socket buffer (net.core.wmem_default)
#: Characters of an error text that fit a packet, whatever they are; its end is what matters.
MAX_ERROR_TEXT = 8000
#: Descriptors of one packet, an even number: CMSG_SPACE pads an odd one to hold one more.
MAX_FDS = 8

_INT_BYTES = array("i").itemsize

Packet = dict[str, Any]


def encode(op: str, **fields: Any) -> bytes:
    """The bytes of a packet. Raises ProtocolError (local) above MAX_PACKET_BYTES."""
    data: bytes = msgpack.packb({"op": op, **fields})
    if len(data) > MAX_PACKET_BYTES:
        raise ProtocolError(
            f"length of control packet {op!r}",
            len(data),
            f"at most {MAX_PACKET_BYTES} bytes",
            fault="local",
        )
    return data


def decode(data: bytes) -> Packet:
    """The map of a packet. Raises ProtocolError (peer) if it is too long, no map or without op."""
    if len(data) > MAX_PACKET_BYTES:
        raise ProtocolError("control packet", len(data), f"at most {MAX_PACKET_BYTES} bytes")
    try:
        packet = msgpack.unpackb(data, strict_map_key=False)
    except ValueError as exc:
        raise ProtocolError("control packet", data[:32], f"msgpack ({exc})") from None
    if not isinstance(packet, dict) or not isinstance(packet.get("op"), str):
        raise ProtocolError("control packet", packet, "a map with the text op")
    return packet


class ControlChannel:
    """One end of a control channel. Nothing here blocks but `wait` and `drain`.

    eof: the other end is closed and every packet of it was returned.
    """

    def __init__(self, sock: socket.socket, *, takes_fds: bool = True) -> None:
        """Take over *sock*, a connected AF_UNIX SOCK_SEQPACKET socket.

        *takes_fds*: whether descriptors are let into this process.
        """
        sock.setblocking(False)
        self._sock = sock
        self._fds_space = socket.CMSG_SPACE(MAX_FDS * _INT_BYTES) if takes_fds else 0
        self._backlog: deque[tuple[bytes, list[int]]] = deque()
        self.eof = False

    @classmethod
    def from_fd(cls, fd: int) -> ControlChannel:
        """The child's end, inherited as descriptor *fd*; programs it starts do not inherit it."""
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        return cls(sock)

    @classmethod
    def pair(cls) -> tuple[ControlChannel, socket.socket]:
        """The supervisor's end and the socket to hand down; descriptors only go down."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours, takes_fds=False), theirs

    def fileno(self) -> int:
        """The descriptor to watch for reading; -1 once closed."""
        return self._sock.fileno()

    @property
    def has_backlog(self) -> bool:
        """Whether packets wait for room in the socket; `send` and `flush` write them."""
        return bool(self._backlog)

    def send(self, op: str, fds: Sequence[int] = (), **fields: Any) -> None:
        """Send a packet, or keep it until the other end has read earlier ones.

        The other end gets copies of *fds*; the caller may close its own right away.
        Dropped silently if the other end is gone: reading, or its pidfd, says so.
        Raises ProtocolError above MAX_PACKET_BYTES or MAX_FDS.
        """
        if len(fds) > MAX_FDS:
            allowed = f"at most {MAX_FDS}"
            raise ProtocolError(f"fds of packet {op!r}", len(fds), allowed, fault="local")
        data = encode(op, fds=len(fds), **fields) if fds else encode(op, **fields)
        if self._backlog or not self._write(data, fds):
            self._backlog.append((data, _copies(fds)))

    def flush(self) -> None:
        """Write as much of the backlog as the socket takes."""
        while self._backlog and self._write(*self._backlog[0]):
            _close(self._backlog.popleft()[1])

    def _write(self, data: bytes, fds: Sequence[int]) -> bool:
        """Whether the packet needs no further attempt: it is sent, or there is nobody to get it."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            pass
        return True

    def drain(self, timeout_s: float) -> bool:
        """Wait until the backlog is written, at most *timeout_s* per packet; False if it is not."""
        while self._backlog:
            if not _poll(self, select.POLLOUT, timeout_s):
                return False
            self.flush()
        return True

    def receive(self) -> list[Packet]:
        """All packets that are here, oldest first; sets `eof` after the last one.

        A packet that carries descriptors has them as ``fds``, a list, and they are the caller's to
        close; programs this process starts do not inherit them. Raises ProtocolError for a packet
        that is none, or whose descriptors are not those it names; no descriptor is kept then.
        """
        packets: list[Packet] = []
        try:
            while (packet := self._receive_one()) is not None:
                packets.append(packet)
        except ProtocolError:
            for packet in packets:
                _close(packet.get("fds", ()))
            raise
        return packets

    def _receive_one(self) -> Packet | None:
        """The next packet; None if there is none yet, or any more."""
        while not self.eof:
            try:
                data, rights, flags, _ = self._sock.recvmsg(
                    MAX_PACKET_BYTES + 1, self._fds_space, socket.MSG_CMSG_CLOEXEC
                )
            except BlockingIOError:
                return None
            except ConnectionResetError:
                # It closed with packets of ours unread. Linux says so before it hands out what it
                # sent us before, and says it once.
                continue
            if data:
                return _packet(data, _descriptors(rights), bool(flags & socket.MSG_CTRUNC))
            self.eof = True
        return None

    def wait(self, timeout_s: float) -> list[Packet]:
        """As `receive`, but waits up to *timeout_s* seconds for the first packet or the end."""
        _poll(self, select.POLLIN, timeout_s)
        return self.receive()

    def close(self) -> None:
        """Close this end; the other one reads end of file."""
        self._sock.close()
        for _, fds in self._backlog:
            _close(fds)
        self._backlog.clear()


def _packet(data: bytes, fds: list[int], more: bool) -> Packet:
    """The packet of *data* and *fds*, which are closed if it is none. *more*: some were cut off."""
    try:
        packet = decode(data)
        named = packet.pop("fds", 0)
        if more or named != len(fds):
            found = f"{len(fds)} and more" if more else len(fds)
            raise ProtocolError("descriptors of control packet", found, f"what it names, {named!r}")
    except ProtocolError:
        _close(fds)
        raise
    if fds:
        packet["fds"] = fds
    return packet


def _descriptors(rights: Iterable[tuple[int, int, bytes]]) -> list[int]:
    fds = array("i")
    for level, kind, data in rights:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % _INT_BYTES])
    return fds.tolist()


def _copies(fds: Iterable[int]) -> list[int]:
    return [os.dup(fd) for fd in fds]


def _close(fds: Iterable[int]) -> None:
    for fd in fds:
        os.close(fd)


def _poll(channel: ControlChannel, event: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(channel, event)
    return bool(poll.poll(timeout_s * 1000))
