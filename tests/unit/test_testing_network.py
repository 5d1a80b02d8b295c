"""Connections in memory behave as sockets do: order, pauses, ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from mpmsgr.testing.network import End, Network


class Reads(asyncio.BufferedProtocol):
    """Keeps what it reads, a few bytes at a time, and what happened."""

    def __init__(self) -> None:
        self.end = cast(End, None)
        self.read = bytearray()
        self.lost = 0
        self._room = bytearray(4)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.end = cast(End, transport)

    def get_buffer(self, sizehint: int) -> bytearray:
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        self.read += self._room[:nbytes]

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def connected(talk: Callable[[Network, Reads, Reads], object]) -> tuple[Reads, Reads]:
    """Both ends, after *talk* and what follows from it."""
    near, far = Reads(), Reads()

    async def main() -> None:
        network = Network(asyncio.get_running_loop())
        network.listen("192.0.2.2", 1, lambda: far)
        transport, protocol = network.connect(lambda: near, "192.0.2.2", 1)
        assert (transport, protocol) == (near.end, near)
        talk(network, near, far)
        await settle()

    asyncio.run(main())
    return near, far


def test_addresses_are_each_others() -> None:
    def talk(network: Network, near: Reads, far: Reads) -> None:
        for one, other in ((near.end, far.end), (far.end, near.end)):
            assert one.get_extra_info("peername") == other.get_extra_info("sockname")
        assert far.end.get_extra_info("sockname") == ("192.0.2.2", 1)
        assert network.end_of(near) is near.end
        assert network.end_of(far) is None

    connected(talk)


def test_bytes_arrive_in_order() -> None:
    def talk(network: Network, near: Reads, far: Reads) -> None:
        near.end.write(b"all ")
        near.end.writelines([b"of ", memoryview(b"it")])
        far.end.write(b"back")
        assert not far.read, "not at once: it would be called in the midst of something"

    near, far = connected(talk)
    assert (bytes(far.read), bytes(near.read)) == (b"all of it", b"back")


def test_who_reads_no_more_gets_it_later() -> None:
    def talk(network: Network, near: Reads, far: Reads) -> None:
        far.end.pause_reading()
        near.end.write(b"all of it")
        near.end.close()
        asyncio.get_running_loop().call_soon(check)

    def check() -> None:
        near, far = ends
        assert (bytes(far.read), far.lost, near.lost) == (b"", 0, 1)
        far.end.resume_reading()

    ends: tuple[Reads, Reads]

    def both(network: Network, near: Reads, far: Reads) -> None:
        nonlocal ends
        ends = near, far
        talk(network, near, far)

    _, far = connected(both)
    assert (bytes(far.read), far.lost) == (b"all of it", 1)


def test_closing_ends_both_once_after_what_was_written() -> None:
    def talk(network: Network, near: Reads, far: Reads) -> None:
        near.end.write(b"bye")
        near.end.close()
        near.end.abort()
        near.end.write(b"too late")
        far.end.write(b"nobody reads that")
        assert network.end_of(near) is None

    near, far = connected(talk)
    assert (bytes(far.read), far.lost) == (b"bye", 1)
    assert (bytes(near.read), near.lost) == (b"", 1)
