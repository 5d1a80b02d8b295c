"""The proxy that breaks connections does so as told, and only in ways a receiver can notice."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from mpmsgr import EntityName, Message
from mpmsgr.errors import ProtocolError
from mpmsgr.testing.proxy import Link, Proxy
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.features import SUPPORTED
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.v1.frames import encode_ack, message_writer
from mpmsgr.wire.v1.parcel import encode_parcel
from mpmsgr.wire.v1.parser import FrameParser
from tests.fault_proxy import FaultProxy, Kind, flip_bit
from tests.loopback import HOST

#: Early enough for the few kilobytes of these tests.
SOON = 50


def frames() -> bytes:
    """An ack and two messages."""
    parcels = [encode_parcel(Message(0x8001, b"front", b"mid", b"data" * 9), EntityName(8, 1))] * 2
    out: list[Bytes] = [encode_ack(1)]
    message_writer(SUPPORTED, EntityAddr())(out, parcels, 1)
    return b"".join(out)


@pytest.mark.parametrize("seed", range(100))
def test_a_flipped_bit_is_always_noticed(seed: int) -> None:
    data = bytearray(frames())
    assert flip_bit(data, Random(seed))
    assert sum((a ^ b).bit_count() for a, b in zip(data, frames(), strict=True)) == 1
    with pytest.raises(ProtocolError):
        FrameParser(Limits(), SUPPORTED).feed(bytes(data))


def test_what_is_no_message_is_not_corrupted() -> None:
    data = bytearray(bytes([7]) * 200)
    assert not flip_bit(data, Random(1))
    assert data == bytes([7]) * 200


Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def through(proxy: FaultProxy, talk: Talk) -> None:
    """A server that sends back what it reads; *talk* is its client's side, through *proxy*."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(4096):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(echo, HOST, 0)
        proxy.target = server.sockets[0].getsockname()[:2]
        reader, writer = await asyncio.open_connection(*await proxy.start())
        async with asyncio.timeout(10.0):
            await talk(reader, writer)
        writer.close()
        await proxy.close()
        server.close()
        await server.wait_closed()

    asyncio.run(main())


@pytest.mark.parametrize("kind", [Kind.STALL, Kind.SLOW])
def test_delays_change_nothing(kind: Kind) -> None:
    proxy = FaultProxy(None, 1, mean_bytes=2_000, kinds=[kind])
    text = Random(7).randbytes(20_000)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        assert await reader.readexactly(len(text)) == text

    through(proxy, talk)
    assert proxy.counts[kind.value]


@pytest.mark.parametrize("kind", [Kind.CUT, Kind.HALF_OPEN])
@pytest.mark.parametrize("seed", range(4))
def test_a_cut_is_the_end_of_a_prefix(kind: Kind, seed: int) -> None:
    proxy = FaultProxy(None, seed, mean_bytes=SOON, kinds=[kind])
    text = Random(7).randbytes(20_000)
    got = b""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        writer.write(text)
        try:
            while data := await reader.read(4096):
                got += data
        except ConnectionError:
            pass

    through(proxy, talk)
    assert len(got) < len(text)
    assert text.startswith(got)
    assert proxy.counts == {"connections": 1, kind.value: 1}


def test_what_comes_before_the_far_side_is_there_is_kept() -> None:
    link, far = Link(Proxy(None)), list[bytes]()

    class Socket(asyncio.Transport):
        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return SimpleNamespace(setsockopt=lambda *_: None)

        def write(self, data: Any) -> None:
            far.append(bytes(data))

    link.near.data_received(b"early")
    link.near.data_received(b" bird")
    assert far == []
    link.far.connection_made(Socket())
    link.near.data_received(b", late worm")
    assert b"".join(far) == b"early bird, late worm"
