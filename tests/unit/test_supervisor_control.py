"""The control channel: packets, its bounds, its ends."""

from __future__ import annotations

import fcntl
import os
import socket
from array import array
from collections.abc import Iterator

import pytest

from mpmsgr.control import MAX_FDS, MAX_PACKET_BYTES, ControlChannel, encode
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


# Descriptors


def memfd(text: str = "") -> int:
    fd = os.memfd_create("of-the-test")
    os.write(fd, text.encode())
    return fd


def contents(fds: list[int]) -> list[str]:
    """What the memfds hold; closes them."""
    texts = [os.pread(fd, 100, 0).decode() for fd in fds]
    for fd in fds:
        os.close(fd)
    return texts


def open_fds() -> list[str]:
    return os.listdir("/proc/self/fd")


def test_descriptors_come_with_their_packet(ends: Ends) -> None:
    ours, child = ends
    fds = [memfd("one"), memfd("two")]
    ours.send("start", fds=fds, number=1)
    for fd in fds:
        os.close(fd)
    ours.send("stop")
    start, stop = child.receive()
    assert stop == {"op": "stop"}
    assert (start["op"], start["number"]) == ("start", 1)
    assert all(fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC for fd in start["fds"])
    assert contents(start["fds"]) == ["one", "two"]


def test_as_many_as_there_may_be(ends: Ends) -> None:
    ours, child = ends
    fds = [memfd(str(number)) for number in range(MAX_FDS + 1)]
    ours.send("x", fds=fds[:MAX_FDS])
    with pytest.raises(ProtocolError, match="local"):
        ours.send("x", fds=fds)
    (packet,) = child.receive()
    assert contents(packet["fds"]) == contents(fds)[:MAX_FDS]


def test_descriptors_wait_in_the_backlog(ends: Ends) -> None:
    ours, child = ends
    sent = 0
    while not ours.has_backlog:
        fd = memfd(str(sent))
        ours.send("x", fds=[fd], text="." * 10_000)
        os.close(fd)
        sent += 1
    seen = [text for packet in child.receive() for text in contents(packet["fds"])]
    assert ours.drain(5.0)
    seen += [text for packet in child.receive() for text in contents(packet["fds"])]
    assert seen == [str(number) for number in range(sent)]


@pytest.mark.parametrize("gone", [False, True])
def test_what_was_never_sent_is_closed(gone: bool) -> None:
    before = len(open_fds())
    ours, theirs = ControlChannel.pair()
    fd = memfd()
    while not ours.has_backlog:
        ours.send("x", fds=[fd], text="." * 10_000)
    ours.send("x", fds=[fd])
    os.close(fd)
    if gone:
        theirs.close()
        ours.flush()
        assert not ours.has_backlog
    ours.close()
    theirs.close()
    assert len(open_fds()) == before


@pytest.mark.parametrize(
    ("named", "sent"), [(None, 1), (2, 1), (0, 1), (1, 0), ("all", 1), (8, 10), (None, 12)]
)
def test_descriptors_that_are_not_those_named_are_refused(named: object, sent: int) -> None:
    ours, theirs = ControlChannel.pair()
    child = ControlChannel(theirs)
    fds = [memfd() for _ in range(sent)]
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
    with socket.socket(fileno=os.dup(ours.fileno())) as sock:
        sock.sendmsg([encode("x") if named is None else encode("x", fds=named)], rights)
    before = len(open_fds())
    with pytest.raises(ProtocolError, match="descriptors"):
        child.receive()
    assert len(open_fds()) == before
    contents(fds)
    ours.close()
    child.close()


def test_descriptors_of_earlier_packets_go_with_one_that_is_none(ends: Ends) -> None:
    ours, child = ends
    fd = memfd()
    ours.send("x", fds=[fd])
    os.close(fd)
    with socket.socket(fileno=os.dup(ours.fileno())) as sock:
        sock.send(b"\xc1")
    before = len(open_fds())
    with pytest.raises(ProtocolError):
        child.receive()
    assert len(open_fds()) == before


def test_the_supervisor_takes_none(ends: Ends) -> None:
    ours, child = ends
    fd = memfd()
    child.send("ready", fds=[fd])
    os.close(fd)
    before = len(open_fds())
    with pytest.raises(ProtocolError, match="descriptors"):
        ours.receive()
    assert len(open_fds()) == before
