"""The real ``ceph`` command line and our monitor double, in the test's process and in workers."""

from __future__ import annotations

import asyncio
import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mpmsgr import Connection, Dispatcher, Message, Messenger
from tests.interop.ceph import CephError, ceph_at, needs_ceph_cli
from tests.interop.serving import Serving
from workers.ceph_mon import FSID, CephMon
from workers.ceph_payloads import AUTH, MON_COMMAND, MON_SUBSCRIBE

pytestmark = needs_ceph_cli

COMMANDS, AT_ONCE = 50, 6
WITNESS, MON = "tests.interop.witness:Witness", "workers.ceph_mon"


def test_it_talks_to_a_messenger_without_a_pool() -> None:
    class Types(Dispatcher):
        def __init__(self) -> None:
            self.seen: list[int] = []

        def dispatch(self, con: Connection, m: Message) -> bool | None:
            self.seen.append(m.type)
            return False

    async def main() -> tuple[str, list[int]]:
        async with Messenger("mon.0", nonce=0) as m:
            addr = await m.bind("127.0.0.1:0")
            types = Types()
            m.add_dispatcher_tail(types)
            m.add_dispatcher_tail(CephMon())
            return await asyncio.to_thread(ceph_at, f"v1:{addr}", "hello", "world"), types.seen

    said, types = asyncio.run(main())
    assert said.strip() == "hello, world, from mon.a"
    assert types[0] == AUTH
    assert types[-1] == MON_COMMAND


def test_workers_answer_it(tmp_path: Path) -> None:
    """Handshake, authentication, subscriptions, commands: through the I/O process and workers."""
    journal = tmp_path / "journal"
    toml = f'[options."{WITNESS}"]\njournal = "{journal}"\n'
    with Serving(tmp_path, "mon.0", WITNESS, MON, toml=toml) as server:
        said = ceph_at(f"v1:{server.address}/0", "hello", "world")
    assert said.strip() == "hello, world, from mon.a"

    seen: list[dict[str, Any]] = [json.loads(line) for line in journal.read_text().splitlines()]
    assert (seen[0]["type"], seen[0]["seq"]) == (AUTH, 1)
    assert {message["type"] for message in seen} >= {AUTH, MON_SUBSCRIBE, MON_COMMAND}
    assert all("mpmsgr.pool.worker" in message["command"] for message in seen)
    assert server.process.pid not in {message["pid"] for message in seen}


def test_every_command_is_answered_however_often_its_sockets_fail(tmp_path: Path) -> None:
    """One socket operation in 30 fails, so that a connection seldom gets through its handshake."""
    failing = ("--ms-inject-socket-failures", "30")
    # It looks for another monitor after 3 s, and each time half as long again. There is but one.
    impatient = (
        "--mon-client-hunt-interval",
        "0.2",
        "--mon-client-hunt-interval-max-multiple",
        "1",
    )
    with Serving(tmp_path, "mon.0", MON) as server, ThreadPoolExecutor(AT_ONCE) as callers:
        say_hello = (*failing, *impatient, "hello", "world")
        calls = [
            callers.submit(ceph_at, f"v1:{server.address}/0", *say_hello) for _ in range(COMMANDS)
        ]
        assert {call.result().strip() for call in calls} == {"hello, world, from mon.a"}
        connections = {int(pipe) for pipe in re.findall(r"pipe (\d+), peer", server.log)}
    assert len(connections) > 2 * COMMANDS + 10, "two a command if nothing fails"


def test_options_and_refusals_reach_it(tmp_path: Path) -> None:
    toml = f'[options."{MON}"]\nname = "zoo"\n'
    with Serving(tmp_path, "mon.0", MON, toml=toml) as server:
        address = f"v1:{server.address}/0"
        assert ceph_at(address, "fsid").strip() == FSID
        # Before it has a map, the client calls the first monitor it was told of "a".
        assert json.loads(ceph_at(address, "ping", "mon.a"))["mon_status"]["name"] == "zoo"
        with pytest.raises(CephError, match=r"EINVAL.*invalid command"):
            ceph_at(address, "no", "such", "command")
