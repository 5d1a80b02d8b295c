"""Strangers: whatever they send, other sessions go on, and each gets one line in the log."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random

import pytest

from mpmsgr import Message, Messenger
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.wire.v1.frames import CLOSE, encode_ack
from mpmsgr.wire.v1.handshake import BANNER
from mpmsgr.wire.v1.tags import Tag
from tests.processes.pool_serving import Serve
from tests.raw_peer import RawPeer, tls_hello, with_authorizer_length
from tests.streams import message_frame, with_length

ECHO = 0x8001
HANDSHAKE_S = 0.5
FOUR_GIB = (1 << 32) - 1
#: Offsets of the lengths in a message header.
FRONT, MIDDLE, DATA = 22, 26, 30

MODULES = {
    "echoes": """
        from mpmsgr import handles

        @handles(0x8001)
        def echo(con, m):
            con.send_message(m.reply(m.front, m.middle, m.data))
    """
}

Garbage = Callable[[RawPeer], None]


@pytest.fixture(scope="module")
def server() -> Iterator[Serve]:
    toml = f"handshake_timeout_s = {HANDSHAKE_S}\n"
    with Serve(MODULES, toml=toml) as server:
        yield server


@contextmanager
def undisturbed(server: Serve) -> Iterator[None]:
    """Meanwhile a session makes requests: all are answered, over one connection, one after the
    other, at least a hundred of them.
    """
    running = True

    async def main() -> int:
        async with Messenger("client.7") as messenger:
            con = messenger.get_connection(server.address)
            assert isinstance(con, MessengerConnection)
            await con.wait_connected(10)
            facts, count = con.handshake, 0
            while running or count < 100:
                text = b"%d" % count
                reply = await con.request(Message(ECHO, text), timeout=10)
                assert bytes(reply.front) == text
                count += 1
            assert con.handshake is facts, "no reconnect"
            assert con.last_reset is None
            return count

    with ThreadPoolExecutor(1) as pool:
        session = pool.submit(asyncio.run, main())
        try:
            yield
        finally:
            running = False
            session.result(20)


def line_about(server: Serve, port: int) -> str:
    """The one line about the stranger at *port*."""
    mark = f"peer 127.0.0.1:{port}/"
    server.until(lambda: server.lines(mark), f"a line about {port}", 5)
    (line,) = server.lines(mark)
    assert " WARNING io " in line
    return line.partition(mark)[2].partition(": ")[2]


def corrupt(frame: bytes, at: int) -> bytes:
    """*frame* with one byte changed."""
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]


def says(data: bytes) -> Garbage:
    return lambda peer: peer.send(data)


def after_handshake(data: bytes) -> Garbage:
    def play(peer: RawPeer) -> None:
        peer.handshake()
        peer.send(data)

    return play


def lets_down(peer: RawPeer) -> None:
    # To close before the server's banner is read would be a reset, if it is there by then.
    peer.sock.shutdown(socket.SHUT_WR)


def half_address(peer: RawPeer) -> None:
    peer.send(peer.hello()[:50])
    lets_down(peer)


def huge_authorizer(peer: RawPeer) -> None:
    peer.send(peer.hello() + with_authorizer_length(peer.connect(), FOUR_GIB))


def stops_in_the_handshake(peer: RawPeer) -> None:
    peer.send(peer.hello())


FRAME = message_frame(Message(ECHO, b"front", b"middle", b"data", tid=5))
TIMED_OUT = f"no session after {HANDSHAKE_S:g} s of handshake"

GARBAGE: dict[str, tuple[Garbage, str]] = {
    "random bytes": (says(Random(1).randbytes(4096)), "banner is "),
    "HTTP": (says(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), "banner is b'GET / HTT' at byte 0"),
    "TLS": (says(tls_hello()), "banner is b'\\x16\\x03\\x01"),
    "an old banner": (says(b"ceph v026" + bytes(200)), "banner is b'ceph v026' at byte 0"),
    "msgr2": (says(b"ceph v2\n" + bytes(20)), "banner is b'ceph v2\\n"),
    "a port scan": (lets_down, "the peer closed the socket"),
    "a port scan with RST": (RawPeer.reset, ""),
    "silence": (says(b""), TIMED_OUT),
    "a banner and silence": (says(BANNER), TIMED_OUT),
    "half an address": (half_address, "the peer closed the socket"),
    "half a handshake": (stops_in_the_handshake, TIMED_OUT),
    "an address of no family": (
        lambda peer: peer.send(BANNER + b"\0" * 8 + b"\0\x63" + bytes(126)),
        "address.family is 99 at byte 17",
    ),
    "an authorizer of 4 GiB": (
        huge_authorizer,
        f"authorizer_len is {FOUR_GIB} at byte 173, allowed: at most 4096",
    ),
    "a tag that is none": (after_handshake(b"\xee"), "tag is 238 at byte 178"),
    "a front of 4 GiB": (
        after_handshake(with_length(FRAME, FRONT, FOUR_GIB)),
        f"header.front_len is {FOUR_GIB} at byte 201",
    ),
    "a middle of 4 GiB": (
        after_handshake(with_length(FRAME, MIDDLE, FOUR_GIB)),
        f"header.middle_len is {FOUR_GIB} at byte 205",
    ),
    "data of 4 GiB": (
        after_handshake(with_length(FRAME, DATA, FOUR_GIB)),
        f"header.data_len is {FOUR_GIB} at byte 209",
    ),
    "a bad header": (after_handshake(corrupt(FRAME, 10)), "header.crc is "),
    "a bad front": (after_handshake(corrupt(FRAME, 54)), "footer.front_crc is "),
    "bad data": (after_handshake(corrupt(FRAME, 66)), "footer.data_crc is "),
}


def test_each_kind_gets_one_line_and_disturbs_nobody(server: Serve) -> None:
    with undisturbed(server):
        ports = {}
        for nonce, (kind, (play, _)) in enumerate(GARBAGE.items(), 100):
            peer = RawPeer(server.address, nonce)
            ports[kind] = peer.port
            play(peer)
            if peer.sock.fileno() >= 0:
                peer.read_to_end()
                peer.sock.close()
        for kind, (_, reason) in GARBAGE.items():
            said = line_about(server, ports[kind])
            assert said.startswith(reason), (kind, said)


def test_a_crowd_of_strangers(server: Serve) -> None:
    rng = Random(2)
    with undisturbed(server):
        peers = [RawPeer(server.address) for _ in range(150)]
        for peer in rng.sample(peers, len(peers)):
            peer.send(rng.randbytes(rng.randrange(1, 3000)))
        for peer in rng.sample(peers, len(peers)):
            peer.sock.close()
        for peer in peers:
            assert line_about(server, peer.port)


def test_a_message_before_the_bad_one_is_handled(server: Serve) -> None:
    with RawPeer(server.address, nonce=77) as peer:
        peer.handshake()
        peer.send(FRAME + corrupt(message_frame(Message(ECHO, b"x", tid=6), seq=2), 54))
        assert line_about(server, peer.port).startswith("footer.front_crc is ")
    # Its session goes on: the reply waits for it.
    with RawPeer(server.address, nonce=77) as peer:
        peer.handshake(Tag.SEQ, connect_seq=2, global_seq=2)
        reply = peer.read(len(FRAME))
        assert b"frontmiddledata" in reply
        peer.send(encode_ack(1) + CLOSE)
        assert peer.read_to_end() == CLOSE
