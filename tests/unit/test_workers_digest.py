"""The digest: what it computes, and that the sender's front comes back."""

from __future__ import annotations

import hashlib
import zlib
from typing import Any, cast
from unittest.mock import Mock

import msgpack
import pytest

from mpmsgr import Connection, Message
from mpmsgr.errors import ConfigError
from workers.digest import DIGEST, Digest, digest

DATA = b"some data " * 500


def answer(worker: Digest, asked: Message) -> Message:
    con = Mock(spec_set=["send_message"])
    assert worker.dispatch(cast(Connection, con), asked) is not False
    (reply,) = con.send_message.call_args.args
    assert isinstance(reply, Message)
    return reply


def test_the_reply_holds_hash_and_size_and_the_senders_front() -> None:
    front = bytes(range(256))
    reply = answer(Digest(), Message(DIGEST, front, data=memoryview(DATA), tid=9))
    assert (reply.type, reply.tid) == (0x8002, 9)
    assert reply.middle == front
    assert bytes(reply.data) == b""
    assert msgpack.unpackb(reply.front) == {
        "sha256": hashlib.sha256(DATA).hexdigest(),
        "compressed": len(zlib.compress(DATA)),
        "rounds": 1,
    }


def test_rounds_chain_the_hash() -> None:
    link = hashlib.sha256(DATA).digest()
    link = hashlib.sha256(link + DATA).digest()
    assert digest(DATA, 2, 6)["sha256"] == link.hex()


def test_options_reach_the_work() -> None:
    asked = Message(DIGEST, data=DATA)
    stored = msgpack.unpackb(answer(Digest(rounds=3, level=0), asked).front)
    assert stored["rounds"] == 3
    assert stored["compressed"] > len(DATA)


@pytest.mark.parametrize(
    "options", [{"rounds": 0}, {"rounds": True}, {"level": 10}, {"level": "9"}]
)
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        Digest(**options)
