"""The control channel: packets, its bounds, its ends."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from mpmsgr.control import MAX_PACKET_BYTES, ControlChannel
from mpmsgr.errors import ProtocolError

Ends = tuple[ControlChannel, ControlChannel]


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = ControlChannel.pair()
    child = ControlChannel(theirs)
    yield ours, child
    ours.close()
    child.close()


def test_packets_arrive_whole_and_in_order(ends: Ends) -> None:
    ours, child = ends
    ours.send("start", settings={"modules": ["a:B"]}, incarnation=1)
    ours.send("stop")
    assert child.receive() == [
        {"op": "start", "settings": {"modules": ["a:B"]}, "incarnation": 1},
        {"op": "stop"},
    ]
    assert child.receive() == []
    assert not child.eof


def test_the_end_is_seen_after_the_last_packet(ends: Ends) -> None:
    ours, child = ends
    child.send("failed", error="no")
    child.close()
    assert ours.wait(5.0) == [{"op": "failed", "error": "no"}]
    assert ours.eof


def test_last_words_arrive_although_ours_were_not_read(ends: Ends) -> None:
    ours, child = ends
    ours.send("link", incarnation=2)
    child.send("failed", error="no")
    child.close()
    assert ours.receive() == [{"op": "failed", "error": "no"}]
    assert ours.eof


def test_sending_to_who_is_gone_is_no_error(ends: Ends) -> None:
    ours, child = ends
    child.close()
    ours.send("stop")
    assert not ours.has_backlog
    assert ours.receive() == []
    assert ours.eof


def test_sending_never_blocks_and_loses_nothing(ends: Ends) -> None:
    ours, child = ends
    count = 0
    while not ours.has_backlog:
        ours.send("x", number=count, text="." * 10_000)
        count += 1
    ours.send("last", number=count)
    assert not ours.drain(0.0)
    seen = [packet["number"] for packet in child.receive()]
    assert ours.drain(5.0)
    seen += [packet["number"] for packet in child.receive()]
    assert seen == list(range(count + 1))


def test_the_longest_packet(ends: Ends) -> None:
    ours, child = ends
    ours.send("x", text="." * (MAX_PACKET_BYTES - 15))
    (packet,) = child.receive()
    assert len(packet["text"]) == MAX_PACKET_BYTES - 15
    with pytest.raises(ProtocolError, match="local") as caught:
        ours.send("x", text="." * MAX_PACKET_BYTES)
    assert caught.value.fault == "local"
    assert not ours.has_backlog


@pytest.mark.parametrize(
    "data", [b"\xc1", b"\x01", b"\x80", b"\x81\xa2op\x05", b"." * (MAX_PACKET_BYTES + 2)]
)
def test_what_is_no_packet_is_refused(data: bytes) -> None:
    ours, theirs = ControlChannel.pair()
    with theirs:
        theirs.send(data)
        with pytest.raises(ProtocolError) as caught:
            ours.receive()
    assert caught.value.fault == "peer"
    ours.close()


def test_an_inherited_end_is_inherited_once() -> None:
    ours, theirs = ControlChannel.pair()
    theirs.set_inheritable(True)
    child = ControlChannel.from_fd(theirs.detach())
    with socket.socket(fileno=child.fileno()) as sock:
        assert not sock.get_inheritable()
        sock.detach()
    child.close()
    ours.close()
