"""kill -9 of a random worker every second, under load of mixed sizes: no client notices."""

from __future__ import annotations

import asyncio
import math
import os
import re
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

import pytest

from mpmsgr import Message
from mpmsgr.messenger.connection import MessengerConnection
from tests.processes.pool_arenas import DEBUG, bytes_in_use, slots_in_use
from tests.processes.pool_clients import WAIT_S, Strays, session, settle
from tests.processes.pool_serving import IO, WORKER, Serve, kill
from tests.support import eventually_async

ECHO, TURN, LATER, KEYED, WHO = range(0x9001, 0x9006)
SMALLEST, LARGEST, SHIFTS = 64, 4 << 20, 4096
WORKERS, COUNTING, KEYS, KEYING, IN_FLIGHT = 2, 5, 2, 3, 4

MODULES = {
    "tally": """
        import asyncio
        import os
        import time
        from mpmsgr import handles

        def count(m, state):
            state["n"] = state.get("n", 0) + 1
            return b"%d %d" % (state["n"], m.attempt)

        @handles(0x9001)
        def echo(con, m, state):
            con.send_message(m.reply(count(m, state), data=m.data))

        @handles(0x9002)
        def turn(con, m, state):
            front, data = count(m, state), con.allocate(len(m.data))
            data[:] = m.data
            data[0] ^= 0xFF
            time.sleep(0.02)
            con.send_message(m.reply(front, data=data))

        @handles(0x9003)
        async def later(con, m, state):
            front = count(m, state)
            await asyncio.sleep(0.002)
            con.send_message(m.reply(front, data=m.data))

        @handles(0x9004, key=slice(0, 1))
        def keyed(con, m, state):
            time.sleep(0.01)
            con.send_message(m.reply(count(m, state), data=m.data))

        @handles(0x9005)
        def who(con, m):
            return os.getpid()
    """
}
#: Less memory than the load would like to have.
TOML = """
    max_attempts = 0
    arena_bytes = 25165824
    worker_arena_bytes = 8388608
"""


@dataclass
class Outcome:
    """What became of one session's requests.

    answered: in the order of the replies, the request's number and what it was counted as; again:
    attempts beside the first.
    """

    sent: int = 0
    answered: list[tuple[int, int]] = field(default_factory=list)
    again: int = 0
    nbytes: int = 0
    strays: Strays = field(default_factory=Strays)


class Load:
    """Sessions that keep requests in flight until `over`: some count each for itself, some share
    the counter of a key.
    """

    def __init__(self, server: Serve, seed: int) -> None:
        self.over = asyncio.Event()
        self.counting = [Outcome() for _ in range(COUNTING)]
        self.keying = [[Outcome() for _ in range(KEYING)] for _ in range(KEYS)]
        self._server = server
        self._rng = Random(seed)
        self._noise = self._rng.randbytes(LARGEST + SHIFTS)

    async def run(self) -> None:
        """All sessions, from their start to their end."""
        async with asyncio.TaskGroup() as tasks:
            for outcome in self.counting:
                tasks.create_task(self._session(outcome, None))
            for key, outcomes in enumerate(self.keying):
                for outcome in outcomes:
                    tasks.create_task(self._session(outcome, key))

    async def _session(self, outcome: Outcome, key: int | None) -> None:
        rng = Random(self._rng.random())
        async with session(self._server, outcome.strays) as con:
            pending: deque[asyncio.Task[None]] = deque()
            while not self.over.is_set():
                outcome.sent += 1
                asked = self._ask(con, self._request(rng, key), outcome, outcome.sent)
                pending.append(asyncio.create_task(asked))
                if len(pending) == IN_FLIGHT:
                    await pending.popleft()
            await asyncio.gather(*pending)

    def _request(self, rng: Random, key: int | None) -> Message:
        size = int(math.exp(rng.uniform(math.log(SMALLEST), math.log(LARGEST))))
        at = rng.randrange(SHIFTS)
        data = self._noise[at : at + size]
        if key is None:
            return Message(rng.choice((ECHO, TURN, LATER)), data=data)
        return Message(KEYED, bytes([key]), data=data)

    async def _ask(self, con: MessengerConnection, m: Message, out: Outcome, number: int) -> None:
        reply = await con.request(m, timeout=WAIT_S)
        data = bytes(m.data)
        if m.type == TURN:
            data = bytes([data[0] ^ 0xFF]) + data[1:]
        assert reply.data == data, f"{len(data)} bytes of type {m.type:#x} came back wrong"
        count, attempt = map(int, bytes(reply.front).split())
        out.answered.append((number, count))
        out.again += attempt - 1
        out.nbytes += len(data)

    def check(self) -> None:
        """Every request was answered once, in order, and counted once."""
        everybody = [*self.counting, *(out for outs in self.keying for out in outs)]
        for out in everybody:
            assert out.strays.messages == [], "more than one reply"
            assert [number for number, _ in out.answered] == list(range(1, out.sent + 1))
        for out in self.counting:
            assert [count for _, count in out.answered] == list(range(1, out.sent + 1))
        for outs in self.keying:
            counts = [[count for _, count in out.answered] for out in outs]
            assert counts == [sorted(own) for own in counts], "in the order sent"
            together = sorted(count for own in counts for count in own)
            assert together == list(range(1, sum(out.sent for out in outs) + 1))
        sent, again = sum(out.sent for out in everybody), sum(out.again for out in everybody)
        assert again, "no worker died in the midst of a message: this run shows nothing"
        mib = sum(out.nbytes for out in everybody) >> 20
        print(f"{sent} messages, {mib} MiB each way, {again} of them handed out again")


async def kill_every_second(server: Serve, rng: Random, count: int) -> None:
    """So many times."""
    began = time.monotonic()
    for number in range(1, count + 1):
        await asyncio.sleep(began + number - time.monotonic())
        pids = await asyncio.to_thread(server.pids, WORKER)
        if pids:
            kill(rng.choice(pids))


def held_by(pid: int) -> Counter[str]:
    """Descriptors and maps of memory files of a process, by kind."""
    held = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            held.append("descriptor " + os.readlink(f"/proc/{pid}/fd/{fd}"))
    with open(f"/proc/{pid}/maps") as lines:
        held += ["map " + line.split(maxsplit=5)[5].strip() for line in lines if "/memfd:" in line]
    return Counter(re.sub(r"\d+", "N", name) for name in held)


def no_more(pids: list[int], before: list[Counter[str]]) -> bool:
    """Does no process hold more than *before*?"""
    return all(held_by(pid) <= had for pid, had in zip(pids, before, strict=True))


def run(seed: int, kills: int) -> None:
    async def main(server: Serve) -> None:
        await settle(server, WHO, WORKERS)
        owners = [server.process.pid, *server.pids(IO)]
        before = [held_by(pid) for pid in owners]
        load = Load(server, seed)
        running = asyncio.create_task(load.run())
        killing = asyncio.create_task(kill_every_second(server, Random(seed), kills))
        await asyncio.wait([running, killing], return_when=asyncio.FIRST_COMPLETED)
        load.over.set()
        await asyncio.gather(running, killing)
        load.check()
        await settle(server, WHO, WORKERS)
        assert server.pids(IO) == owners[1:]
        await eventually_async(lambda: no_more(owners, before), WAIT_S, "nothing is left behind")

    with Serve(MODULES, workers=WORKERS, toml=TOML, flags=DEBUG) as server:
        asyncio.run(main(server))
        assert server.stop() == 0, server.log
        assert not any(slots_in_use(server).values()), slots_in_use(server)
        assert not any(bytes_in_use(server))


def test_a_worker_is_killed_every_second() -> None:
    run(seed=1, kills=8)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_worker_is_killed_every_second_for_a_minute(seed: int) -> None:
    run(seed, kills=60)
