"""The pool's two ends on one loop: stale workers, moved lanes, ended sessions."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from unittest.mock import patch

import pytest

from mpmsgr import Connection, Dispatcher, Message
from mpmsgr.dispatch.payload import reply_to
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.pool.envelope import BATCH, READY, pack
from mpmsgr.pool.remote import RemoteConnection
from mpmsgr.pool.replies import Replies
from mpmsgr.pool.seat import Seat
from tests.support import eventually_async
from tests.unit.pool_harness import answer, ask, on_uvloop, pool, pool_and_session, session, text
from tests.unit.pool_site import Site
from tests.unit.pool_under_test import INCARNATION, Pool

ASK, HOLD, DOWN, PUSH = 0x9001, 0x9002, 0x9003, 0x9004


class Worker(Dispatcher):
    """A dispatcher that says which worker it is in; what is held ends when it is let go."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.let_go = asyncio.Event()
        self.seen: list[tuple[int, str]] = []
        self.seen_attempts: list[int] = []
        self.cons: list[Connection] = []

    async def dispatch(self, con: Connection, m: Message) -> None:
        self.seen.append((m.type, text(m)))
        self.seen_attempts.append(m.attempt)
        if con not in self.cons:
            self.cons.append(con)
        if m.type == HOLD:
            await self.let_go.wait()
        elif m.type == DOWN:
            con.mark_down()
        con.send_message(reply_to(m, [self.site.name, con.peer_type, con.peer_addr.nonce]))


class Crew:
    """The dispatchers of all workers, by the names of these."""

    def __init__(self) -> None:
        self.of: dict[str, Worker] = {}

    def __call__(self, site: Site) -> Iterable[Worker]:
        worker = self.of[site.name] = Worker(site)
        return [worker]


async def home(con: MessengerConnection) -> str:
    """The worker that answers."""
    name: str = (await answer(con, ASK))[0]
    return name


# readiness


@on_uvloop
async def test_a_worker_learns_that_it_is_known() -> None:
    async with pool(Crew(), workers=0) as (p, messenger):
        await p.worker(0)
        assert p.ready == {0: 1}, "at once, when it says so"
        assert await home(await session(p, messenger)) == "0.1"


@on_uvloop
async def test_the_ready_of_a_dead_worker_that_arrives_late() -> None:
    async with pool(Crew(), workers=0) as (p, messenger):
        p.front.worker_lost(0, 1, "signal 9")
        p.stray(0, 1).send(pack((INCARNATION, 1, READY, None)))
        await p.worker(1)  # what came before it has been read
        assert p.ready == {1: 1}
        con = await session(p, messenger)
        assert [await home(con) for _ in range(3)] == ["1.1"] * 3


@on_uvloop
async def test_a_new_worker_before_the_old_one_s_death_is_known() -> None:
    crew = Crew()
    async with pool_and_session(crew) as (p, con):
        asked = [ask(con, HOLD, i) for i in range(3)]
        await eventually_async(lambda: crew.of["0.1"].seen)
        p.cut(p.workers.pop(0))
        await p.worker(0)
        new = crew.of["0.2"]
        await eventually_async(lambda: new.seen)
        p.front.worker_lost(0, 1, "signal 9")
        assert p.ready == {0: 2}
        new.let_go.set()
        await asyncio.gather(*asked)
        assert [front for _, front in new.seen] == ["0", "1", "2"]
        assert set(new.seen_attempts) == {1}, "nobody knows which of them was running"


@on_uvloop
async def test_frames_that_are_stale() -> None:
    async with pool(Crew(), workers=0) as (p, messenger):
        await p.worker(0, generation=2)
        con = await session(p, messenger)
        assert await home(con) == "0.2"
        id_ = p.session.id
        bogus: list[tuple[int, int, list[bytes]]] = [(id_, 1, [])]
        for incarnation, generation, name in ((2, 2, 2), (INCARNATION, 1, 1), (INCARNATION, 3, 2)):
            link = p.stray(0, name) if name != 2 else p.stray(5, name)
            link.send(pack((incarnation, generation, BATCH, (bogus, 0))))
        p.stray(6, 1).send(pack((INCARNATION, 1, READY, None)))
        await eventually_async(lambda: 6 in p.ready)
        assert (p.lane().inflight, p.lane().worker) == ([], p.seat(0))
        p.front.worker_lost(6, 1, "it was none")


@on_uvloop
@pytest.mark.parametrize("what", ["send", "take"])
async def test_an_error_of_its_own_is_no_secret(what: str) -> None:
    """Whose requests are lost by it is told by the end of the process, and by nothing else."""
    errors: list[BaseException | None] = []
    whom = Replies if what == "send" else Seat
    async with pool(Crew(), workers=0, on_broken=lambda: errors.append(sys.exception())) as (p, m):
        con = await session(p, m)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        with patch.object(whom, what, side_effect=KeyError("ours")):
            asked = ask(con, ASK)
            if what == "send":
                await p.worker(0)
            else:
                p.stray(0, 1).send(pack((INCARNATION, 1, READY, None)))
            await eventually_async(lambda: errors)
        assert [repr(error) for error in errors] == ["KeyError('ours')"]
        asked.cancel()
        if what == "send":
            p.kill(0)
        else:
            p.front.worker_lost(0, 1, "it was none")
        await p.worker(0, 2)


@on_uvloop
async def test_without_shared_memory_everything_travels_in_frames() -> None:
    async with pool_and_session(Crew(), sizes=None) as (_, con):
        assert await home(con) == "0.1"
        assert (await ask(con, ASK, data=bytes(3_000_000))).tid


# a worker's end


@on_uvloop
async def test_what_a_dead_worker_held_is_done_by_the_next_and_the_lane_goes_on() -> None:
    crew = Crew()
    async with pool_and_session(crew) as (p, con):
        asked = [ask(con, HOLD, i) for i in range(3)]
        await eventually_async(lambda: crew.of["0.1"].seen)
        p.kill(0)
        await p.worker(1)
        crew.of["1.1"].let_go.set()
        assert [(await one).front for one in asked] == [(await asked[0]).front] * 3
        assert await home(con) == "1.1"
        assert [front for _, front in crew.of["1.1"].seen] == ["0", "1", "2", ""]


@on_uvloop
async def test_what_waits_for_a_worker_gets_the_next_one() -> None:
    async with pool_and_session(Crew(), workers=0) as (p, con):
        waiting = asyncio.ensure_future(home(con))
        await eventually_async(lambda: p.lane().queued == 2)  # accept, and the message
        await p.worker(0)
        assert await waiting == "0.1"


@on_uvloop
async def test_a_worker_that_says_goodbye() -> None:
    async with pool_and_session(Crew()) as (p, con):
        assert await home(con) == "0.1"
        p.workers.pop(0).runtime.goodbye()
        await p.worker(1)
        await eventually_async(lambda: p.ready == {1: 1})
        assert await home(con) == "1.1"


@on_uvloop
async def test_a_worker_that_retires_finishes_what_it_has() -> None:
    crew = Crew()
    async with pool_and_session(crew, workers=2) as (p, con):
        asked = [ask(con, HOLD, i) for i in range(3)]
        (old,) = await eventually_async(lambda: [w for w in crew.of.values() if w.seen])
        slot = int(old.site.name[0])
        p.front.retire(slot, 1)
        assert not p.front.holds_nothing(slot, 1)
        old.let_go.set()
        await asyncio.gather(*asked)
        await eventually_async(lambda: p.front.holds_nothing(slot, 1))
        assert [front for _, front in old.seen] == ["0", "1", "2"]
        assert await home(con) == f"{1 - slot}.1"


# moving


async def move(p: Pool) -> None:
    """Make the next message of the only lane go elsewhere."""
    lane = p.lane()
    await eventually_async(lambda: not lane.inflight)
    assert lane.worker is not None
    p.front.retire(lane.worker.slot, lane.worker.generation)


@on_uvloop
async def test_a_moved_lane_is_forgotten_where_it_was() -> None:
    async with pool_and_session(Crew(), workers=2) as (p, con):
        assert await home(con) == "0.1"
        await move(p)
        assert await home(con) == "1.1"
        await eventually_async(lambda: p.workers[0].cons == {})
        assert len(p.workers[1].cons) == 1


@on_uvloop
async def test_a_stored_connection_of_a_moved_lane_still_reaches_its_peer() -> None:
    crew = Crew()
    async with pool_and_session(crew, workers=2) as (p, con):
        pushes = con.messages(PUSH)
        assert await home(con) == "0.1"
        (stored,) = crew.of["0.1"].cons
        await move(p)
        assert await home(con) == "1.1"
        await asyncio.sleep(0)
        assert stored.send_message(Message(PUSH, b"from afar")) is True
        assert text(await anext(pushes)) == "from afar"
        stored.mark_down()
        await eventually_async(lambda: con.last_reset)


@on_uvloop
async def test_a_lane_that_moves_after_a_reconnect() -> None:
    async with pool_and_session(Crew(), workers=2) as (p, con):
        assert await home(con) == "0.1"
        assert con.session.pipe is not None
        con.session.pipe.handle.abort()  # type: ignore[attr-defined]
        assert await home(con) == "0.1"
        await move(p)
        assert await home(con) == "1.1"
        await eventually_async(lambda: p.workers[0].cons == {})


# the end of a session


@on_uvloop
async def test_a_closed_session_is_forgotten_everywhere() -> None:
    crew = Crew()
    async with pool(crew) as (p, messenger):
        con = await session(p, messenger)
        await home(con)
        (stored,) = crew.of["0.1"].cons
        await messenger.shutdown()
        await eventually_async(lambda: not p.lanes and not p.workers[0].cons)
        assert (stored.is_connected, stored.send_message(Message(PUSH))) == (False, False)


@on_uvloop
async def test_messages_behind_a_mark_down_are_handled_and_know_their_sender() -> None:
    crew = Crew()
    async with pool(crew) as (p, messenger):
        worker = crew.of["0.1"]
        con = await session(p, messenger)
        await home(con)
        con.send_message(Message(HOLD, b"1"))
        con.send_message(Message(DOWN, b"2"))
        con.send_message(Message(ASK, b"3"))
        (old,) = p.lanes
        await eventually_async(lambda: len(p.lanes[old].inflight) == 3)
        worker.let_go.set()
        await eventually_async(lambda: con.last_reset)
        await eventually_async(lambda: old not in p.lanes and old not in p.workers[0].cons)
        assert [front for _, front in worker.seen] == ["", "1", "2", "3"]
        marked = [c for c in worker.cons if c.id == old]
        assert len(marked) == 1, "one connection, from first to last"
        assert isinstance(marked[0], RemoteConnection)
        assert (marked[0].gone, marked[0].peer_type) == (True, 8)
        assert await home(con) == "0.1", "in a new session"
        assert p.items == p.nbytes == 0


@on_uvloop
async def test_reading_pauses_above_the_limit_and_goes_on() -> None:
    async with pool_and_session(Crew(), workers=0, dispatch_bytes=10_000) as (p, con):
        asked = [ask(con, ASK, b"x" * 1000) for _ in range(400)]
        await eventually_async(lambda: p.nbytes > 10_000)
        await eventually_async(lambda: p.session.paused)
        assert p.nbytes < 400 * 1000
        await p.worker(0)
        await asyncio.gather(*asked)
        assert (p.nbytes, bool(p.session.paused)) == (0, False)
