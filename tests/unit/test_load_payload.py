from __future__ import annotations

import pytest

from mpmsgr.load.payload import Bodies, Requests, noise
from mpmsgr.load.plan import LoadPlan
from mpmsgr.wire.message import Message
from mpmsgr.wire.name import EntityName
from mpmsgr.wire.v1.frames import write_messages
from mpmsgr.wire.v1.parcel import HEADER, Parcel, decode_raw, encode_parcel

SERVICE = EntityName(0x40, 0)


def plan(size: int, type_: int = 0x8001) -> LoadPlan:
    return LoadPlan("h:1", size=size, type=type_, count=1)


def requests(size: int, client: int = 1, type_: int = 0x8001) -> Requests:
    made = plan(size, type_)
    return Requests(made, client, Bodies(made))


def raw_of(parcel: Parcel) -> bytes:
    out: list[bytes | bytearray | memoryview] = []
    write_messages(out, [parcel], 9)
    return b"".join(out)[1:]


def decoded(made: Requests, tid: int) -> Message:
    return decode_raw(raw_of(made.parcels(range(tid, tid + 1))[0]))


def intact(made: Requests, tid: int, reply: Message) -> bool:
    raw = raw_of(encode_parcel(reply, SERVICE))
    return made.intact(tid, HEADER.unpack_from(raw)[5:8], raw)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 64, 5000, 300_000])
def test_an_echo_request_has_its_size_in_three_parts(size: int) -> None:
    made = requests(size, client=7)
    for tid in (1, 2, 4093, 1 << 40):
        m = decoded(made, tid)
        assert (m.type, m.tid, m.src, m.size) == (0x8001, tid, EntityName(8, 7), size)
        assert size < 4 or (m.front and m.middle and m.data)


@pytest.mark.parametrize(("size", "lengths"), [(64, (16, 0, 48)), (5, (5, 0, 0))])
def test_other_requests_have_their_bulk_in_data(size: int, lengths: tuple[int, ...]) -> None:
    m = decoded(requests(size, type_=0x8002), 1)
    assert (len(m.front), len(m.middle), len(m.data)) == lengths


def test_requests_in_flight_differ_within_and_between_clients() -> None:
    bodies = Bodies(plan(64))
    assert len({bodies.of(1, tid) for tid in range(500)}) == 500
    assert len({bodies.of(client, 5) for client in range(500)}) == 500


def test_bodies_take_a_bounded_amount_of_memory() -> None:
    bodies = Bodies(plan(6 << 20))
    assert len({bodies.of(1, tid) for tid in range(100)}) == 4


@pytest.mark.parametrize("size", [0, 1, 64, 5000, 300_000])
def test_an_echo_is_intact(size: int) -> None:
    made = requests(size)
    m = decoded(made, 3)
    reply = m.reply(m.front, m.middle, m.data)
    assert intact(made, 3, reply)
    raw = raw_of(encode_parcel(reply, SERVICE, crc_data=False))
    lengths = HEADER.unpack_from(raw)[5:8]
    assert made.intact(3, lengths, raw)
    assert made.intact(3, lengths, memoryview(raw))


def test_an_echo_of_other_bytes_is_not_intact() -> None:
    made = requests(64)
    m = decoded(made, 3)
    front = bytes(m.front)
    assert not intact(made, 3, m.reply(front[:-1] + b"?", m.middle, m.data))
    assert not intact(made, 3, m.reply(front + bytes(m.middle), b"", m.data))
    assert not intact(made, 3, m.reply(front, m.middle, bytes(m.data) + b"+"))
    assert not intact(made, 4, m.reply(front, m.middle, m.data))


def test_other_handlers_bring_the_front_back_in_middle() -> None:
    made = requests(64, type_=0x8002)
    m = decoded(made, 3)
    assert intact(made, 3, m.reply(b"result", m.front, b"x"))
    assert not intact(made, 3, m.reply(m.front, b"", m.data))


def test_the_block_is_the_same_in_every_process() -> None:
    assert noise(64) == noise(64)
