"""Monitor payloads against what real Ceph peers sent, and against broken bytes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpmsgr.errors import ProtocolError
from mpmsgr.wire.address import EntityAddr
from workers import ceph_payloads as payloads

VECTORS = Path(__file__).parent.parent / "vectors" / "v1"
FSID = UUID("5eed1ab0-0000-4000-8000-000000000001")


def again_hello(payload: bytes) -> bytes:
    return payloads.AuthHello.decode(payload).encode()


ROUND_TRIP: dict[int, Callable[[bytes], bytes]] = {
    payloads.MON_MAP: lambda b: payloads.MonMap.decode(b).encode(),
    payloads.MON_SUBSCRIBE: lambda b: payloads.Subscribe.decode(b).encode(),
    payloads.AUTH: lambda b: payloads.Auth.decode(b).encode(),
    payloads.AUTH_REPLY: lambda b: payloads.AuthReply.decode(b).encode(),
    payloads.MON_COMMAND: lambda b: payloads.Command.decode(b).encode(),
    payloads.MON_COMMAND_ACK: lambda b: payloads.CommandAck.decode(b).encode(),
    payloads.CONFIG: lambda b: payloads.encode_config(payloads.decode_config(b)),
}


def messages(name: str, side: str) -> Iterator[tuple[dict[str, Any], bytes, bytes]]:
    """Header, front and data of each message that *side* sent on connection *name*."""
    stream = (VECTORS / f"{name}.{side}.bin").read_bytes()
    for frame in json.loads((VECTORS / f"{name}.json").read_text())[side]:
        if frame["frame"] == "MSG":
            front = stream[frame["front_off"] : frame["middle_off"]]
            yield frame["header"], front, stream[frame["data_off"] : frame["footer_off"]]


def first(name: str, side: str, type_: int) -> bytes:
    return next(front for header, front, _ in messages(name, side) if header["type"] == type_)


MONITOR_STREAMS = sorted(path.stem for path in VECTORS.glob("mon-*.json"))


@pytest.mark.parametrize("side", ["client", "server"])
@pytest.mark.parametrize("name", MONITOR_STREAMS)
def test_every_captured_payload_encodes_to_the_same_bytes(name: str, side: str) -> None:
    checked = 0
    for header, front, _ in messages(name, side):
        again = ROUND_TRIP.get(header["type"])
        if again:
            assert again(front) == front, header
            checked += 1
    assert checked


def test_the_captures_hold_every_payload_type() -> None:
    types = {
        header["type"]
        for name in MONITOR_STREAMS
        for side in ("client", "server")
        for header, _, _ in messages(name, side)
    }
    assert types >= set(ROUND_TRIP)


def test_auth_names_methods_and_client() -> None:
    auth = payloads.Auth.decode(first("mon-bootstrap-none", "client", payloads.AUTH))
    assert (auth.protocol, auth.monmap_epoch) == (0, 0)
    hello = payloads.AuthHello.decode(auth.payload)
    assert hello == payloads.AuthHello((payloads.AUTH_NONE,), 8, "admin", 0)
    assert again_hello(auth.payload) == auth.payload


def test_auth_reply_tells_the_global_id() -> None:
    reply = payloads.AuthReply.decode(first("mon-ping-none", "server", payloads.AUTH_REPLY))
    assert reply == payloads.AuthReply(payloads.AUTH_NONE, 0, 0x1005)


def test_subscribe_names_the_wishes() -> None:
    wanted = payloads.Subscribe.decode(first("mon-status-none", "client", payloads.MON_SUBSCRIBE))
    wishes = (payloads.Subscription("config"), payloads.Subscription("monmap"))
    assert wanted == payloads.Subscribe(wishes, "vm")


def test_monmap_names_cluster_and_monitor() -> None:
    monmap = payloads.MonMap.decode(first("mon-ping-none", "server", payloads.MON_MAP))
    assert monmap.fsid == FSID
    assert monmap.mons == (payloads.MonInfo("a", (EntityAddr.parse("127.0.0.1:16789"),)),)
    assert (monmap.epoch, monmap.ranks, monmap.min_mon_release) == (1, ("a",), 16)


def test_ranks_are_the_monitors_unless_told_otherwise() -> None:
    mons = tuple(payloads.MonInfo(name, ()) for name in "ab")
    assert payloads.MonMap.decode(payloads.MonMap(FSID, mons).encode()).ranks == ("a", "b")


def test_command_and_its_ack() -> None:
    command = payloads.Command.decode(first("mon-status-none", "client", payloads.MON_COMMAND))
    assert command == payloads.Command(FSID, ('{"prefix": "get_command_descriptions"}',))
    ack = payloads.CommandAck.decode(first("mon-status-none", "server", payloads.MON_COMMAND_ACK))
    assert ack == payloads.CommandAck(0, "", command.lines)


def test_ping_answer_is_one_string() -> None:
    front = first("mon-ping-none", "server", payloads.PING)
    text = payloads.decode_text(front)
    assert json.loads(text)["health"]["status"] == "HEALTH_OK"
    assert payloads.encode_text(text) == front


def test_config_keeps_options() -> None:
    options = {"debug_ms": "1", "": "x"}
    assert payloads.decode_config(payloads.encode_config(options)) == options


DECODERS: dict[str, Callable[[bytes], object]] = {
    "auth": payloads.Auth.decode,
    "hello": payloads.AuthHello.decode,
    "auth_reply": payloads.AuthReply.decode,
    "subscribe": payloads.Subscribe.decode,
    "command": payloads.Command.decode,
    "ack": payloads.CommandAck.decode,
    "monmap": payloads.MonMap.decode,
    "config": payloads.decode_config,
    "text": payloads.decode_text,
}
WHOLE: dict[str, bytes] = {
    "auth": payloads.Auth(0, b"blob", 3).encode(),
    "hello": payloads.AuthHello((1, 2)).encode(),
    "auth_reply": payloads.AuthReply(1, -13, 4097, b"blob", "why").encode(),
    "subscribe": payloads.Subscribe((payloads.Subscription("osdmap", 1, 1),), "here").encode(),
    "command": payloads.Command(FSID, ("{}",)).encode(),
    "ack": payloads.CommandAck(-22, "no", ("{}",)).encode(),
    "monmap": payloads.MonMap(FSID, (payloads.MonInfo("a", (EntityAddr.of("::1", 1),)),)).encode(),
    "config": payloads.encode_config({"a": "b"}),
    "text": payloads.encode_text("text"),
}


@pytest.mark.parametrize("kind", DECODERS)
def test_bytes_that_end_early_are_named(kind: str) -> None:
    whole = WHOLE[kind]
    DECODERS[kind](whole)
    for size in range(len(whole)):
        with pytest.raises(ProtocolError) as caught:
            DECODERS[kind](whole[:size])
        assert caught.value.offset is not None


@pytest.mark.parametrize("kind", DECODERS)
@given(data=st.binary(max_size=200))
def test_garbage_is_a_protocol_error_or_a_value(kind: str, data: bytes) -> None:
    try:
        DECODERS[kind](data)
    except ProtocolError:
        pass


@pytest.mark.parametrize("kind", DECODERS)
@given(at=st.integers(0, 1 << 16), value=st.integers(0, 255))
def test_a_changed_byte_is_a_protocol_error_or_a_value(kind: str, at: int, value: int) -> None:
    data = bytearray(WHOLE[kind])
    data[at % len(data)] = value
    try:
        DECODERS[kind](bytes(data))
    except ProtocolError:
        pass


def test_a_huge_count_costs_nothing() -> None:
    with pytest.raises(ProtocolError, match=r"config\.name"):
        payloads.decode_config(b"\xff\xff\xff\xff")


def test_errors_tell_the_offset_in_the_payload() -> None:
    front = bytearray(payloads.MonMap(FSID, ()).encode())
    features_at = 4 + 6 + 16 + 20
    front[features_at + 1] = 9  # readers of version 9 and newer
    with pytest.raises(ProtocolError, match="persistent_features") as caught:
        payloads.MonMap.decode(front)
    assert caught.value.offset == features_at


def test_the_map_of_version_1_is_refused() -> None:
    with pytest.raises(ProtocolError, match="versions 6 to 9"):
        payloads.MonMap.decode(bytes.fromhex("bb000000 0100") + bytes(0xB9))


def test_text_must_be_utf8() -> None:
    with pytest.raises(ProtocolError, match="UTF-8") as caught:
        payloads.decode_text(b"\1\0\0\0\xff")
    assert caught.value.offset == 4
