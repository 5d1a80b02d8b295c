"""The echo's contract: every part of the message comes back as it was."""

from __future__ import annotations

from typing import cast
from unittest.mock import Mock

import pytest

from mpmsgr import Connection, Message
from workers.echo import ECHO, Echo


@pytest.mark.parametrize(
    ("front", "middle", "data"),
    [(b"", b"", b""), (b"front", b"middle", b"data"), (b"", b"m", b""), (b"f", b"", b"d" * 70000)],
)
def test_all_parts_come_back(front: bytes, middle: bytes, data: bytes) -> None:
    con = Mock(spec_set=["send_message"])
    asked = Message(ECHO, memoryview(front), memoryview(middle), memoryview(data), tid=7)
    assert Echo().dispatch(cast(Connection, con), asked) is not False
    (reply,) = con.send_message.call_args.args
    assert (reply.type, reply.tid) == (0x8001, 7)
    assert (reply.front, reply.middle, reply.data) == (front, middle, data)


def test_it_takes_echo_alone() -> None:
    assert set(Echo.message_types) == {0x8001}
