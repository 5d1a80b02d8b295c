"""Lean msgr v1 clients: prebuilt frames over plain sockets, one epoll loop, every reply checked.

They share no code with the messenger they measure, and do what a lossless client owes: a real
handshake, consecutive seqs, an ACK per batch received, answers to KEEPALIVE2. A payload of up to
4 KiB travels as front, a larger one as data, and has to come back in the same part.
"""

from __future__ import annotations

import os
import select
import socket
import struct
from dataclasses import dataclass

from crc32c import crc32c

_BANNER = b"ceph v027"
_FEATURES = 0x40000800042  # NOSRCADDR, RECONNECT_SEQ, MSG_AUTH, MSGR_KEEPALIVE2
_READY, _SEQ = 1, 13
_CLOSE, _MSG, _ACK, _KEEPALIVE, _KEEPALIVE2, _KEEPALIVE2_ACK = 6, 7, 8, 9, 14, 15
_CLIENT = 8
_ECHO = 0x8001
_SMALL = 4096
_TIMEOUT_S = 30

_ADDRESS = struct.Struct("<II128s")
_CONNECT = struct.Struct("<QIIIIIIB")
_REPLY = struct.Struct("<BQIIIIB")
_HEADER = struct.Struct("<QQHHHIIIHBqHH")
_FOOTER = struct.Struct("<IIIQB")
_LENGTHS_AT, _SRC_AT, _PAYLOAD_AT = 23, 37, 54
_SIGNATURE_SIZE = 9
_OVERHEAD = 1 + _HEADER.size + 4 + _FOOTER.size


def _raw_crc(data: bytes) -> int:
    return crc32c(data, 0xFFFFFFFF) ^ 0xFFFFFFFF


@dataclass(frozen=True)
class Requests:
    """Finished frames with the seqs and tids from *first* on; all clients send the same ones."""

    first: int
    number: int
    payload: bytes

    @property
    def stride(self) -> int:
        """Bytes of one frame; a reply has as many."""
        return _OVERHEAD + len(self.payload)

    def frames(self) -> bytes:
        """All of them, one after the other."""
        crc = _raw_crc(self.payload)
        in_front = len(self.payload) <= _SMALL
        lengths = (len(self.payload), 0, 0) if in_front else (0, 0, len(self.payload))
        crcs = (crc, 0, 0) if in_front else (0, 0, crc)
        tail = self.payload + _FOOTER.pack(*crcs, 0, 1)
        return b"".join(self._head(serial, lengths) + tail for serial in self._serials())

    def _serials(self) -> range:
        return range(self.first, self.first + self.number)

    @staticmethod
    def _head(serial: int, lengths: tuple[int, int, int]) -> bytes:
        header = _HEADER.pack(serial, serial, _ECHO, 127, 1, *lengths, 0, _CLIENT, -1, 1, 0)
        return bytes([_MSG]) + header + _raw_crc(header).to_bytes(4, "little")


class MsgrClients:
    """*clients* sessions driven by one thread, each with *in_flight* requests unanswered."""

    def __init__(self, address: tuple[str, int], clients: int, in_flight: int, size: int) -> None:
        self._payload = (bytes(range(256)) * (size // 256 + 1))[:size]
        self._next = 1
        self._epoll = select.epoll()
        self._sessions: dict[int, _Session] = {}
        for _ in range(clients):
            session = _Session(address, in_flight, _OVERHEAD + size)
            self._sessions[session.fileno()] = session
            self._epoll.register(session.fileno(), select.EPOLLIN)

    def drive(self, requests: int) -> int:
        """Make *requests* round trips per client; returns how many there were in all."""
        wanted = Requests(self._next, requests, self._payload)
        self._next += requests
        frames = memoryview(wanted.frames())
        for session in self._sessions.values():
            session.begin(wanted, frames)
            self._watch(session, session.flush())
        busy = set(self._sessions)
        while busy:
            ready = self._epoll.poll(_TIMEOUT_S)
            if not ready:
                raise TimeoutError(f"no reply for {_TIMEOUT_S} s")
            for fd, events in ready:
                session = self._sessions[fd]
                if events & ~select.EPOLLOUT:
                    session.read()
                self._watch(session, session.flush())
                if session.finished:
                    busy.discard(fd)
        return requests * len(self._sessions)

    def close(self) -> None:
        """Say CLOSE on every session."""
        for session in self._sessions.values():
            session.close()
        self._epoll.close()

    def _watch(self, session: _Session, flushed: bool) -> None:
        if flushed != session.watching_reads_only:
            session.watching_reads_only = flushed
            mask = select.EPOLLIN if flushed else select.EPOLLIN | select.EPOLLOUT
            self._epoll.modify(session.fileno(), mask)


class _Session:
    """One TCP connection after a real handshake."""

    def __init__(self, address: tuple[str, int], in_flight: int, stride: int) -> None:
        self._socket = socket.create_connection(address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _shake_hands(self._socket)
        self._socket.setblocking(False)
        self._in_flight = in_flight
        self._in = bytearray(max(1 << 16, 2 * in_flight * stride))
        self._filled = 0
        self._seq = 0
        self._out: list[bytes | memoryview] = []
        self.watching_reads_only = True

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    def begin(self, wanted: Requests, frames: memoryview) -> None:
        """Start over with *wanted*: queue a window of them."""
        self._wanted, self._frames = wanted, frames
        self._answered = self._asked = 0
        self._ask()

    @property
    def finished(self) -> bool:
        """True if every request has its reply and every byte is out."""
        return self._answered == self._wanted.number and not self._out

    def read(self) -> None:
        """Take what has arrived; queue an ACK and the requests that may follow."""
        received = self._socket.recv_into(memoryview(self._in)[self._filled :])
        if not received:
            raise ConnectionError("the server closed the connection")
        self._filled += received
        before = self._answered
        self._parse()
        if self._answered != before:
            self._out.append(struct.pack("<BQ", _ACK, self._seq))
            self._ask()

    def flush(self) -> bool:
        """Write what is queued; False if some of it has to wait."""
        out = self._out
        while out:
            try:
                written = self._socket.sendmsg(out)
            except BlockingIOError:
                return False
            while out and written >= len(out[0]):
                written -= len(out.pop(0))
            if written:
                out[0] = memoryview(out[0])[written:]
        return True

    def close(self) -> None:
        """Say CLOSE and close the socket."""
        self._socket.setblocking(True)
        self._socket.sendall(bytes([_CLOSE]))
        self._socket.close()

    def _ask(self) -> None:
        until = min(self._answered + self._in_flight, self._wanted.number)
        if until > self._asked:
            stride = self._wanted.stride
            self._out.append(self._frames[self._asked * stride : until * stride])
            self._asked = until

    def _parse(self) -> None:
        buffer, end, at = self._in, self._filled, 0
        stride = self._wanted.stride
        while at < end:
            tag = buffer[at]
            length = stride if tag == _MSG else 1 if tag == _KEEPALIVE else 9
            if at + length > end:
                break
            if tag == _MSG:
                self._check_reply(at)
            elif tag == _KEEPALIVE2:
                self._out.append(bytes([_KEEPALIVE2_ACK]) + buffer[at + 1 : at + 9])
            elif tag not in (_ACK, _KEEPALIVE, _KEEPALIVE2_ACK):
                raise ConnectionError(f"unexpected tag {tag}")
            at += length
        if at:
            buffer[: end - at] = buffer[at:end]
            self._filled = end - at

    def _check_reply(self, at: int) -> None:
        """The reply due, the next seq, and every byte from the lengths to the payload's crc."""
        seq, tid, kind = struct.unpack_from("<QQH", self._in, at + 1)
        serial = self._answered
        if (tid, kind) != (self._wanted.first + serial, _ECHO) or seq != self._seq + 1:
            raise RuntimeError(f"reply {serial}: seq {seq}, tid {tid}, type {kind:#x}")
        self._seq = seq
        begin, stride = serial * self._wanted.stride, self._wanted.stride
        for start, stop in ((_LENGTHS_AT, _SRC_AT), (_PAYLOAD_AT, stride - _SIGNATURE_SIZE)):
            asked = self._frames[begin + start : begin + stop]
            if not self._in.startswith(asked, at + start):
                raise RuntimeError(f"reply {serial} is not what was sent")
        self._answered += 1


def _shake_hands(sock: socket.socket) -> None:
    """The client's side of a new session; raises ConnectionError if the server declines."""
    greeting = _read(sock, len(_BANNER) + 2 * _ADDRESS.size)
    if not greeting.startswith(_BANNER):
        raise ConnectionError(f"banner {greeting[:9]!r}")
    _, _, seen = _ADDRESS.unpack(greeting[-_ADDRESS.size :])
    nonce = int.from_bytes(os.urandom(4), "little") | 1
    portless = seen[:2] + bytes(2) + seen[4:]
    connect = _CONNECT.pack(_FEATURES, _CLIENT, 1, 0, 0, 0, 0, 0)
    sock.sendall(_BANNER + _ADDRESS.pack(0, nonce, portless) + connect)
    tag, _, _, _, _, authorizer_length, _ = _REPLY.unpack(_read(sock, _REPLY.size))
    _read(sock, authorizer_length)
    if tag == _SEQ:
        _read(sock, 8)
        sock.sendall(bytes(8))
    elif tag != _READY:
        raise ConnectionError(f"connect answered with tag {tag}")


def _read(sock: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = sock.recv(length - len(data))
        if not piece:
            raise ConnectionError("the server closed the connection during the handshake")
        data += piece
    return bytes(data)
