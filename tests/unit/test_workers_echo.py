"""The echo's contract: every part of the message comes back as it was."""

from __future__ import annotations

from typing import cast
from unittest.mock import Mock

import pytest

from mpmsgr import Connection, Message
from workers.echo import ECHO, Echo, FastEcho


@pytest.mark.parametrize(
    ("front", "middle", "data"),
    [(b"", b"", b""), (b"front", b"middle", b"data"), (b"", b"m", b""), (b"f", b"", b"d" * 70000)],
)
def test_all_parts_come_back(front: bytes, middle: bytes, data: bytes) -> None:
    con = Mock(spec_set=["send_message"])
    asked = Message(ECHO, memoryview(front), memoryview(middle), memoryview(data), tid=7)
    assert Echo().dispatch(cast(Connection, con), asked) is not False
    FastEcho().fast_dispatch(cast(Connection, con), asked)
    for (reply,), _ in con.send_message.call_args_list:
        assert (reply.type, reply.tid) == (0x8001, 7)
        assert (reply.front, reply.middle, reply.data) == (front, middle, data)
    assert con.send_message.call_count == 2


def test_it_takes_echo_alone() -> None:
    assert set(Echo.message_types) == {0x8001}
    assert [FastEcho().can_fast_dispatch(Message(type_)) for type_ in (ECHO, ECHO + 1)] == [
        True,
        False,
    ]
    assert (FastEcho().can_fast_dispatch_any(), Echo().can_fast_dispatch_any()) == (True, False)
