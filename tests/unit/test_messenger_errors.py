"""The error family: one root, facts as attributes, texts made of them."""

from __future__ import annotations

import pytest

from mpmsgr import errors
from mpmsgr.errors import (
    ConfigError,
    ConnectError,
    HandshakeRefused,
    MessengerError,
    OutboxFull,
    PluginError,
    ProtocolError,
    RemoteError,
    RequestTimeout,
    SessionReset,
    WorkerError,
)

HERE = "127.0.0.1:6800/7"


@pytest.mark.parametrize(
    ("error", "text", "facts"),
    [
        (
            ProtocolError("front_len", 9, "at most 5", offset=31),
            "front_len is 9 at byte 31, allowed: at most 5 (peer's fault)",
            {"field": "front_len", "value": 9, "offset": 31, "fault": "peer"},
        ),
        (
            ProtocolError("tag", 99, "a tag", fault="local"),
            "tag is 99, allowed: a tag (local's fault)",
            {"offset": None, "allowed": "a tag"},
        ),
        (
            HandshakeRefused("FEATURES", "the peer requires 0x2"),
            "handshake refused with FEATURES: the peer requires 0x2",
            {"tag": "FEATURES", "detail": "the peer requires 0x2"},
        ),
        (
            ConnectError(HERE, 1, None),
            f"no session with {HERE} after 1 attempt",
            {"address": HERE, "attempts": 1, "cause": None},
        ),
        (
            ConnectError(HERE, 3, "refused"),
            f"no session with {HERE} after 3 attempts: refused",
            {"attempts": 3, "cause": "refused"},
        ),
        (
            RequestTimeout(HERE, 0x8001, 5, 2.5, "standby"),
            f"no reply from {HERE} to type 0x8001 tid 5 within 2.5 s (session standby)",
            {"type": 0x8001, "tid": 5, "timeout_s": 2.5, "state": "standby"},
        ),
        (
            RemoteError(4, "worker 0 was lost", {"attempt": 2}),
            "worker 0 was lost (code 4)",
            {"code": 4, "facts": {"attempt": 2}},
        ),
        (
            SessionReset(HERE, 2, [5, 6]),
            f"session with {HERE} was reset, 2 messages dropped",
            {"lost": 2, "tids": (5, 6)},
        ),
        (PluginError("shop", "is closed"), "shop: is closed", {"module": "shop"}),
        (
            WorkerError(1, 3, "signal 9"),
            "worker 1 (generation 3): signal 9",
            {"slot": 1, "generation": 3, "cause": "signal 9"},
        ),
        (
            ConfigError("bind", "x", "HOST:PORT"),
            "bind = 'x': HOST:PORT",
            {"field": "bind", "value": "x", "allowed": "HOST:PORT"},
        ),
    ],
)
def test_text_and_facts(error: MessengerError, text: str, facts: dict[str, object]) -> None:
    assert isinstance(error, MessengerError)
    assert str(error) == text
    assert {name: getattr(error, name) for name in facts} == facts


def test_an_outbox_that_is_full_says_how_full() -> None:
    text = str(OutboxFull(HERE, 70, 64))
    assert all(part in text for part in (HERE, "70", "64"))


def test_everything_raised_on_purpose_has_the_one_root() -> None:
    family = {
        thing
        for thing in vars(errors).values()
        if isinstance(thing, type) and issubclass(thing, Exception)
    }
    assert all(issubclass(error, MessengerError) for error in family)
    drawn = errors.__doc__ or ""
    assert [error.__name__ for error in family if error.__name__ not in drawn] == []
