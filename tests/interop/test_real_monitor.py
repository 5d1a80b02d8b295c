"""Our client and a real Ceph monitor: handshake, authentication, a request and its answer."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mpmsgr import EntityName, Message, Messenger
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.wire.features import CEPH_PACIFIC
from tests.interop.ceph import Cluster, needs_ceph_mon
from tests.support import eventually_async
from workers import ceph_payloads as payloads

pytestmark = needs_ceph_mon
WAIT_S = 15.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as running:
        yield running


def authentication() -> Message:
    hello = payloads.AuthHello((payloads.AUTH_NONE,), entity_id="admin")
    return Message(payloads.AUTH, payloads.Auth(0, hello.encode()).encode())


async def connected(m: Messenger, cluster: Cluster) -> MessengerConnection:
    con = m.get_connection(cluster.entity_addr, peer_type="mon")
    assert isinstance(con, MessengerConnection)
    await con.wait_connected(WAIT_S)
    return con


def test_the_handshake_completes(cluster: Cluster) -> None:
    async def main() -> None:
        async with Messenger("client.?") as m:
            con = await connected(m, cluster)
            assert con.handshake is not None
            assert con.handshake.announced == con.peer_addr == cluster.entity_addr
            assert con.handshake.seen.host == "127.0.0.1"
            assert con.handshake.protocol_version == 15
            assert (con.handshake.features, con.policy.lossy) == (CEPH_PACIFIC, True)
            assert 0 < await con.ping(WAIT_S) < WAIT_S

    asyncio.run(main())


def test_the_map_is_given_for_a_request(cluster: Cluster) -> None:
    """MAuth brings a map unasked, MMonGetMap one more; neither carries a tid back."""

    async def main() -> None:
        async with Messenger("client.?") as m, asyncio.timeout(WAIT_S):
            con = await connected(m, cluster)
            welcomes, maps = con.messages(payloads.AUTH_REPLY), con.messages(payloads.MON_MAP)
            con.send_message(authentication())
            welcome = payloads.AuthReply.decode((await anext(welcomes)).front)
            assert (welcome.protocol, welcome.result) == (payloads.AUTH_NONE, 0)
            assert welcome.global_id > 0
            unasked = await anext(maps)

            con.send_message(Message(payloads.MON_GET_MAP))
            answer = await anext(maps)
            assert (answer.type, answer.src) == (4, EntityName.parse("mon.0"))
            assert answer.seq > unasked.seq
            monmap = payloads.MonMap.decode(answer.front)
            assert monmap.fsid == cluster.fsid
            assert monmap.mons == (payloads.MonInfo("a", (cluster.entity_addr,)),)

    asyncio.run(main())


def test_a_command_is_answered_to_its_tid(cluster: Cluster) -> None:
    async def main() -> None:
        async with Messenger("client.?") as m:
            con = await connected(m, cluster)
            con.send_message(authentication())
            command = payloads.Command(cluster.fsid, ('{"prefix": "fsid"}',))
            asked = Message(payloads.MON_COMMAND, command.encode())
            reply = await con.request(asked, timeout=WAIT_S)
            assert reply.type == payloads.MON_COMMAND_ACK
            assert payloads.CommandAck.decode(reply.front).result == 0
            assert bytes(reply.data).decode().strip() == str(cluster.fsid)

    asyncio.run(main())


def test_a_connection_the_monitor_drops_is_not_mended_behind_our_back(cluster: Cluster) -> None:
    """A monitor closes on a type it does not know; towards one, sessions are lossy."""

    async def main() -> None:
        async with Messenger("client.?") as m, asyncio.timeout(WAIT_S):
            con = await connected(m, cluster)
            con.send_message(Message(0x8001, b"?"))
            await eventually_async(lambda: not con.is_connected, WAIT_S, "the monitor hangs up")
            assert not con.send_message(authentication())

    asyncio.run(main())


def test_ping_from_the_command_line(cluster: Cluster) -> None:
    here = f"127.0.0.1:{cluster.port}/0"
    text = ping(cluster)
    for part in ("ceph v027", here, "SEQ", "MSGR_KEEPALIVE2", "lossy"):
        assert part in text
    facts = json.loads(ping(cluster, "--json"))
    assert (facts["banner"], facts["tag"], facts["announced"]) == ("ceph v027", "SEQ", here)
    assert (facts["features"], facts["protocol_version"]) == (f"{CEPH_PACIFIC:#x}", 15)
    assert facts["policy"]["lossy"]
    assert 0 < facts["rtt_s"] < WAIT_S


def ping(cluster: Cluster, *flags: str) -> str:
    """What `mpmsgr ping` says of the monitor."""
    command = [sys.executable, "-m", "mpmsgr", "ping", cluster.address, "--peer-type", "mon"]
    done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    return done.stdout
