"""Messages that kill their workers, or are called poison: from the handler to the command line."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mpmsgr import ErrorCode, Message, RemoteError
from mpmsgr.dispatch.payload import unpack
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.pool.spool import Spool
from tests.processes.pool_arenas import DEBUG, slots_in_use
from tests.processes.pool_clients import WAIT_S, session, settle
from tests.processes.pool_serving import Serve

KILLS, KILLS_AT_ONCE, KEYED, UNORDERED, POISON, COUNT, WHO = range(0x9001, 0x9008)

MODULES = {
    "deadly": """
        import os
        import signal
        from mpmsgr import handles
        from mpmsgr.dispatch.verdicts import Poison

        def die():
            if os.path.exists("mended"):
                return "mended"
            os.kill(os.getpid(), signal.SIGKILL)

        @handles(0x9001)
        def kills(con, m, state):
            state["n"] = 1000
            return die()

        @handles(0x9002, max_attempts=1)
        def kills_at_once(con, m):
            return die()

        @handles(0x9003, key=slice(0, 4))
        def keyed(con, m, state):
            if m.front.endswith(b"kill"):
                die()
            return count(con, m, state)

        @handles(0x9004, ordering="none")
        def unordered(con, m):
            return die()

        @handles(0x9005)
        def poison(con, m):
            raise Poison("it smells")

        @handles(0x9006)
        def count(con, m, state):
            state["n"] = state.get("n", 0) + 1
            return [state["n"], m.attempt]

        @handles(0x9007)
        def who(con, m):
            return os.getpid()
    """
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serve]:
    toml = f'quarantine_dir = "{tmp_path}/bad"\nmax_attempts = 2\n'
    with Serve(MODULES, workers=2, toml=toml, flags=DEBUG) as server:
        yield server


def run(*args: str) -> str:
    """What ``mpmsgr quarantine`` prints; it must end well."""
    command = [sys.executable, "-m", "mpmsgr", "quarantine", *args]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MPMSGR_")}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def listed(directory: Path) -> list[dict[str, Any]]:
    listing = json.loads(run("list", "--json", "--dir", str(directory)))
    assert listing["unreadable"] == []
    messages: list[dict[str, Any]] = listing["messages"]
    return messages


async def refused(con: MessengerConnection, m: Message) -> str:
    """The text of the error reply that says that *m* is in quarantine."""
    with pytest.raises(RemoteError) as raised:
        await con.request(m, timeout=WAIT_S)
    assert raised.value.code == ErrorCode.QUARANTINED
    return raised.value.text


async def count(con: MessengerConnection, type_: int = COUNT, front: bytes = b"") -> list[int]:
    value: list[int] = unpack(await con.request(Message(type_, front), timeout=WAIT_S))
    return value


def test_from_the_death_of_workers_to_a_replay(server: Serve, tmp_path: Path) -> None:
    data = os.urandom(1 << 20)

    async def main() -> None:
        async with session(server) as con:
            assert await count(con) == [1, 1]
            deadly = asyncio.create_task(refused(con, Message(KILLS, b"front", data=data, tid=77)))
            after = asyncio.gather(*(count(con) for _ in range(5)))
            assert "2 times" in await deadly
            assert await after == [[n, 1] for n in range(2, 7)], "with the state as before it"
        await settle(server, WHO, 2)

    asyncio.run(main())
    directory = tmp_path / "bad"
    (facts,) = listed(directory)
    assert (facts["type"], facts["tid"], facts["attempts"], facts["signal"]) == (KILLS, 77, 2, 9)
    assert facts["cause"].endswith("was lost: signal 9")
    id_ = facts["id"]
    assert Spool(directory).get(id_).message().data == data
    shown = run("show", id_, "--dir", str(directory))
    assert "9 (SIGKILL)" in shown
    assert "front, 5 bytes:" in shown
    assert server.lines("ERROR io", f"quarantined as {id_}")

    (server.directory / "mended").touch()
    assert "mended" in run("replay", id_, "--to", server.address, "--dir", str(directory))
    assert listed(directory) == []
    assert server.stop() == 0
    assert not any(slots_in_use(server).values()), slots_in_use(server)


def test_a_message_that_kills_on_a_replay_stays_and_can_be_discarded(
    server: Serve, tmp_path: Path
) -> None:
    async def main() -> None:
        async with session(server) as con:
            assert "once" in await refused(con, Message(KILLS_AT_ONCE))

    asyncio.run(main())
    directory = str(tmp_path / "bad")
    (facts,) = listed(tmp_path / "bad")
    command = [sys.executable, "-m", "mpmsgr", "quarantine", "replay", facts["id"]]
    command += ["--to", server.address, "--dir", directory, "--timeout", "30"]
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode != 0
    assert "code 6" in again.stderr + again.stdout
    ids = [facts["id"] for facts in listed(tmp_path / "bad")]
    assert len(ids) == 2, "the old one, and what was replayed"
    assert run("discard", *ids, "--dir", directory).split() == ids
    assert listed(tmp_path / "bad") == []


def test_poison_goes_to_quarantine_at_once(server: Serve, tmp_path: Path) -> None:
    async def main() -> None:
        async with session(server) as con:
            poison = asyncio.create_task(refused(con, Message(POISON)))
            assert await count(con) == [1, 1]
            assert await poison == "poison: it smells"

    asyncio.run(main())
    (facts,) = listed(tmp_path / "bad")
    assert (facts["attempts"], facts["signal"], facts["cause"]) == (1, 0, "poison: it smells")
    assert not server.lines("ended: signal 9")


def test_deadly_messages_of_keys_and_without_order(server: Serve, tmp_path: Path) -> None:
    async def main() -> None:
        async with session(server) as con, session(server) as other:
            assert await count(con, KEYED, b"key1") == [1, 1]
            keyed = asyncio.create_task(refused(con, Message(KEYED, b"key1 kill", tid=81)))
            loose = asyncio.create_task(refused(con, Message(UNORDERED, tid=82)))
            assert "2 times" in await keyed
            assert "2 times" in await loose
            assert (await count(other, KEYED, b"key1"))[0] == 2, "its lane goes on"

    asyncio.run(main())
    assert sorted(facts["tid"] for facts in listed(tmp_path / "bad")) == [81, 82]
