"""Which lane a message goes to: its session's, its key's, or none."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from mpmsgr.dispatch.handling import DEFAULT, Handling
from mpmsgr.dispatch.routes import Routes, key_of

ROOM = Handling(ordering="key", key="room")
BYTES = Handling(ordering="key", key=(2, 4))


def front(**fields: Any) -> bytes:
    packed: bytes = msgpack.packb(fields)
    return packed


def test_equal_values_are_one_key_whatever_is_beside_them() -> None:
    key = key_of(ROOM, front(room="a", text="hello"))
    assert key is not None
    assert key == key_of(ROOM, front(text="bye", room="a"))
    assert len({key, key_of(ROOM, front(room="b")), key_of(ROOM, front(room=b"a"))}) == 3
    assert hash(key_of(ROOM, front(room=["a", {"b": 1}]))) is not None, "any value will do"


def test_the_same_value_of_another_field_is_another_key() -> None:
    other = Handling(ordering="key", key="text")
    assert key_of(ROOM, front(room="a", text="a")) != key_of(other, front(room="a", text="a"))


def test_a_byte_range_of_front() -> None:
    key = key_of(BYTES, b"..xy....")
    assert key == key_of(BYTES, memoryview(b"--xy"))
    assert key != key_of(BYTES, b"..xz....")


@pytest.mark.parametrize(
    ("handling", "front"),
    [
        (ROOM, b""),
        (ROOM, front(text="hello")),
        (ROOM, msgpack.packb(["room"])),
        (ROOM, msgpack.packb(7)),
        (ROOM, b"\xc1 no msgpack"),
        (ROOM, front(room="a")[:-1]),
        (ROOM, front(room="a") + b"more"),
        (ROOM, msgpack.packb({"room": msgpack.ExtType(5, b"x")})[:-1]),
        (BYTES, b"xyz"),
        (BYTES, b""),
    ],
)
def test_what_has_no_key_goes_to_its_session_s_lane(handling: Handling, front: bytes) -> None:
    assert key_of(handling, front) is None


def test_routes() -> None:
    routes = Routes({5: ROOM})
    assert (routes.of(5), routes.of(6)) == (ROOM, DEFAULT)


@pytest.mark.parametrize(
    ("handlings", "plain"),
    [
        ({}, True),
        ({5: Handling(streaming=True)}, True),
        ({5: Handling(streaming=True), 6: ROOM}, False),
        ({5: Handling(ordering="none")}, False),
    ],
)
def test_plain_is_every_message_in_its_session_s_lane(
    handlings: dict[int, Handling], plain: bool
) -> None:
    assert Routes(handlings).plain is plain
    assert Routes().plain
