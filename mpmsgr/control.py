"""The control channel between the supervisor and a child: one msgpack map per packet.

A Unix SOCK_SEQPACKET socket pair: packets keep their bounds, and the end of either process is seen
by the other one as end of file. Each packet is a map with the key ``op``.
"""

from __future__ import annotations

import select
import socket
from collections import deque
from typing import Any

import msgpack

from mpmsgr.errors import ProtocolError

MAX_PACKET_BYTES = 1 << 16  # a third of the default socket buffer (net.core.wmem_default)
#: Characters of an error text that fit a packet, whatever they are; its end is what matters.
MAX_ERROR_TEXT = 8000

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

    def __init__(self, sock: socket.socket) -> None:
        """Take over *sock*, a connected AF_UNIX SOCK_SEQPACKET socket."""
        sock.setblocking(False)
        self._sock = sock
        self._backlog: deque[bytes] = deque()
        self.eof = False

    @classmethod
    def from_fd(cls, fd: int) -> ControlChannel:
        """The child's end, inherited as descriptor *fd*; programs it starts do not inherit it."""
        sock = socket.socket(fileno=fd)
        sock.set_inheritable(False)
        return cls(sock)

    @classmethod
    def pair(cls) -> tuple[ControlChannel, socket.socket]:
        """The supervisor's end and the socket to hand down."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def fileno(self) -> int:
        """The descriptor to watch for reading; -1 once closed."""
        return self._sock.fileno()

    @property
    def has_backlog(self) -> bool:
        """Whether packets wait for room in the socket; `send` and `flush` write them."""
        return bool(self._backlog)

    def send(self, op: str, **fields: Any) -> None:
        """Send a packet, or keep it until the other end has read earlier ones.

        Dropped silently if the other end is gone: reading, or its pidfd, says so.
        Raises ProtocolError above MAX_PACKET_BYTES.
        """
        self._backlog.append(encode(op, **fields))
        self.flush()

    def flush(self) -> None:
        """Write as much of the backlog as the socket takes."""
        while self._backlog:
            try:
                self._sock.send(self._backlog[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                self._backlog.clear()
                return
            self._backlog.popleft()

    def drain(self, timeout_s: float) -> bool:
        """Wait until the backlog is written, at most *timeout_s* per packet; False if it is not."""
        while self._backlog:
            if not _poll(self, select.POLLOUT, timeout_s):
                return False
            self.flush()
        return True

    def receive(self) -> list[Packet]:
        """All packets that are here, oldest first; sets `eof` after the last one.

        Raises ProtocolError for a packet that is none.
        """
        packets: list[Packet] = []
        while not self.eof:
            try:
                data = self._sock.recv(MAX_PACKET_BYTES + 1)
            except BlockingIOError:
                break
            except ConnectionResetError:
                # It closed with packets of ours unread. Linux says so before it hands out what it
                # sent us before, and says it once.
                continue
            if data:
                packets.append(decode(data))
            else:
                self.eof = True
        return packets

    def wait(self, timeout_s: float) -> list[Packet]:
        """As `receive`, but waits up to *timeout_s* seconds for the first packet or the end."""
        _poll(self, select.POLLIN, timeout_s)
        return self.receive()

    def close(self) -> None:
        """Close this end; the other one reads end of file."""
        self._sock.close()


def _poll(channel: ControlChannel, event: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(channel, event)
    return bool(poll.poll(timeout_s * 1000))
