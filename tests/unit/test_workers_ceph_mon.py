"""The monitor double, message by message."""

from __future__ import annotations

import errno
import json
from typing import cast
from uuid import UUID

import pytest

from mpmsgr import Connection, Message
from mpmsgr.wire.address import EntityAddr
from workers import ceph_payloads as payloads
from workers.ceph_mon import FIRST_GLOBAL_ID, FSID, CephMon

HERE = EntityAddr.parse("127.0.0.1:6789")


class Client:
    """A connection as a handler sees it, keeping what was sent."""

    def __init__(self, id: int = 5) -> None:
        self.id, self.my_addr = id, HERE
        self.peer_addr = EntityAddr.parse("127.0.0.1:0/99")
        self.sent: list[Message] = []
        self.is_down = False

    def send_message(self, m: Message) -> None:
        self.sent.append(m)

    def mark_down(self) -> None:
        self.is_down = True

    def ask(self, mon: CephMon, asked: Message) -> list[Message]:
        """What *mon* sends when it is asked."""
        self.sent = []
        assert mon.dispatch(cast(Connection, self), asked) is not False
        return self.sent


def hello(*methods: int, global_id: int = 0) -> Message:
    payload = payloads.AuthHello(methods, global_id=global_id).encode()
    return Message(payloads.AUTH, payloads.Auth(0, payload).encode())


def wish(*wishes: payloads.Subscription) -> Message:
    return Message(payloads.MON_SUBSCRIBE, payloads.Subscribe(wishes, "here").encode(), version=3)


def command(line: str, fsid: str = FSID) -> Message:
    return Message(payloads.MON_COMMAND, payloads.Command(UUID(fsid), (line,)).encode(), tid=3)


def run(line: str, fsid: str = FSID) -> tuple[payloads.CommandAck, str]:
    (reply,) = Client().ask(CephMon(), command(line, fsid))
    assert (reply.type, reply.tid) == (payloads.MON_COMMAND_ACK, 3)
    ack = payloads.CommandAck.decode(reply.front)
    assert ack.lines == (line,)
    return ack, bytes(reply.data).decode()


def test_authentication_tells_the_map_and_then_welcomes() -> None:
    monmap, reply = Client().ask(CephMon(), hello(payloads.AUTH_CEPHX, payloads.AUTH_NONE))
    assert (monmap.type, reply.type) == (payloads.MON_MAP, payloads.AUTH_REPLY)
    welcome = payloads.AuthReply.decode(reply.front)
    assert welcome == payloads.AuthReply(payloads.AUTH_NONE, 0, FIRST_GLOBAL_ID + 5)


def test_a_client_keeps_its_global_id() -> None:
    _, reply = Client().ask(CephMon(), hello(payloads.AUTH_NONE, global_id=4711))
    assert payloads.AuthReply.decode(reply.front).global_id == 4711


@pytest.mark.parametrize(
    "asked",
    [hello(payloads.AUTH_CEPHX), hello(), Message(17, payloads.Auth(2, b"proof").encode())],
)
def test_no_common_method_is_refused(asked: Message) -> None:
    (reply,) = Client().ask(CephMon(), asked)
    assert payloads.AuthReply.decode(reply.front).result == -errno.EOPNOTSUPP


@pytest.mark.parametrize(
    ("mon", "where"),
    [(CephMon(), HERE), (CephMon(address="10.0.0.1:1"), EntityAddr.parse("10.0.0.1:1"))],
)
def test_the_map_names_the_monitor_where_it_was_reached(mon: CephMon, where: EntityAddr) -> None:
    (reply,) = Client().ask(mon, Message(payloads.MON_GET_MAP))
    monmap = payloads.MonMap.decode(reply.front)
    assert (reply.type, str(monmap.fsid)) == (payloads.MON_MAP, FSID)
    assert monmap.mons == (payloads.MonInfo("a", (where,)),)


def test_subscriptions_that_need_an_answer_get_it() -> None:
    client, mon = Client(), CephMon()
    both = wish(payloads.Subscription("config"), payloads.Subscription("monmap"))
    assert [m.type for m in client.ask(mon, both)] == [payloads.CONFIG, payloads.MON_MAP]
    assert client.ask(mon, wish(payloads.Subscription("monmap", start=2))) == []
    assert client.ask(mon, wish(payloads.Subscription("osdmap"))) == []


def test_a_command_of_its_own() -> None:
    ack, output = run('{"prefix": "hello world"}')
    assert (ack.result, ack.text) == (0, "")
    assert output == "hello, world, from mon.a\n"
    assert run('{"prefix": "fsid"}')[1] == f"{FSID}\n"


def test_descriptions_list_every_command() -> None:
    _, output = run('{"prefix": "get_command_descriptions"}')
    commands = json.loads(output)
    assert commands["cmd000"]["sig"] == ["hello", "world"]
    assert commands["cmd000"]["help"]
    assert set(commands["cmd000"]) == {"sig", "help", "module", "perm", "flags"}


def test_what_a_real_monitor_refuses() -> None:
    ack, output = run('{"prefix": "no such"}')
    assert (ack.result, output) == (-errno.EINVAL, "")
    ack, output = run('{"prefix": "hello world"}', fsid="00000000-0000-0000-0000-000000000000")
    assert (ack.result, ack.text, output) == (-errno.EPERM, "wrong fsid", "")


def test_ping_tells_its_health() -> None:
    (reply,) = Client().ask(CephMon(), Message(payloads.PING))
    state = json.loads(payloads.decode_text(reply.front))
    assert state["health"]["status"] == "HEALTH_OK"


@pytest.mark.parametrize(
    "asked",
    [
        Message(payloads.AUTH, b"nonsense"),
        Message(payloads.MON_SUBSCRIBE, b"\xff\xff\xff\xff"),
        Message(payloads.MON_COMMAND),
        command("no json"),
        command("[" * 100_000),
        command('{"prefix": 7}'),
    ],
)
def test_nonsense_drops_the_connection(asked: Message, caplog: pytest.LogCaptureFixture) -> None:
    client = Client()
    assert client.ask(CephMon(), asked) == []
    assert client.is_down
    assert "127.0.0.1:0/99 sent a bad message" in caplog.text


def test_every_type_it_takes_has_an_answer() -> None:
    assert CephMon.message_types == set(CephMon()._answers)
