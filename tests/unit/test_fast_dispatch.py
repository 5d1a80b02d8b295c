"""Fast dispatch: in the process with the sockets, at once, and never at the expense of order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mpmsgr import Connection, Dispatcher, Message, Messenger, PluginError, RemoteError
from mpmsgr.dispatch.chain import AT_ONCE, Chain
from mpmsgr.dispatch.handlers import handles
from mpmsgr.dispatch.payload import PayloadError
from mpmsgr.dispatch.verdicts import Reject
from mpmsgr.errors import HandlerError, OutboxFull
from mpmsgr.messenger import fast as fast_module
from mpmsgr.messenger.fast import FastSink
from mpmsgr.session.policy import STATEFUL_SERVER, Policies
from tests.support import eventually_async
from tests.unit.fast_harness import (
    BOTH,
    FAST,
    SLOW,
    Quick,
    Slow,
    Watcher,
    everywhere,
    fast_service,
    fast_sink,
)
from tests.unit.messenger_peers import Recorder, connected, peer, place, serving
from tests.unit.pool_harness import ask, on_uvloop, refused, session, text
from tests.unit.pool_payloads import Deaf

PUSH = 0x9A10


class Does(Quick):
    """Whose fast dispatch is a function of the test."""

    def __init__(self, function: Callable[[Connection, Message], Any]) -> None:
        super().__init__()
        self._function = function

    def fast_dispatch(self, con: Connection, m: Message) -> None:
        self._function(con, m)


# who gets what


@everywhere
@on_uvloop
async def test_what_is_claimed_is_dispatched_fast_and_the_rest_as_ever(setting: str) -> None:
    quick, slow = Quick(), Slow()
    async with fast_service(quick, setting, slow) as (server, messenger):
        con = await session(server, messenger)
        asked = [ask(con, FAST, b"1", data=b"d" * 2000), ask(con, SLOW, b"2"), ask(con, FAST, b"3")]
        one, two, three = [await each for each in asked]
        assert (text(one), bytes(one.data)) == ("1", b"d" * 2000)
        assert (text(two), text(three)) == ("slow 2", "3")
        assert quick.noted("fast") == [b"1", b"3"]
        assert slow.messages == []
        assert server.statistics()["fast_dispatched"] == 2


@everywhere
@on_uvloop
async def test_it_is_seen_in_the_order_received_whoever_takes_it(setting: str) -> None:
    watcher, slow = Watcher(), Slow()
    async with fast_service(watcher, setting, slow) as (server, messenger):
        messenger.add_dispatcher_tail(Recorder())  # it takes the replies
        con = await session(server, messenger)
        for i in range(60):
            con.send_message(Message((FAST, SLOW, BOTH)[i % 3], b"%d" % i))
        await ask(con, SLOW, b"last")
        fronts = [b"%d" % i for i in range(60)] + [b"last"]
        assert watcher.noted("sees") == fronts
        assert watcher.noted("fast") == fronts[:60:3]
        await eventually_async(lambda: len(slow.messages) == 20)
        assert [bytes(m.front) for m in slow.messages] == fronts[2:60:3]
        own = [(name, front) for name, _, front in watcher.log if front == b"3"]
        assert own == [("sees", b"3"), ("fast", b"3")]


@pytest.mark.parametrize("setting", ["added", "local"])
@on_uvloop
async def test_what_is_noted_on_a_message_goes_along_in_one_process(setting: str) -> None:
    class Notes(Watcher):
        def fast_preprocess(self, con: Connection, m: Message) -> None:
            m.obj = "seen"

    slow = Slow()
    async with fast_service(Notes(), setting, slow) as (server, messenger):
        con = await session(server, messenger)
        con.send_message(Message(BOTH))
        await eventually_async(lambda: slow.messages)
        assert slow.messages[0].obj == "seen"


@everywhere
@on_uvloop
async def test_the_first_that_claims_a_message_gets_it(setting: str) -> None:
    class Odd(Quick):
        def can_fast_dispatch(self, m: Message) -> bool:
            return m.front == b"odd"

    class Broken(Quick):
        def can_fast_dispatch(self, m: Message) -> bool:
            raise ValueError("no idea")

    broken, odd, other = Broken(), Odd(), Quick()
    dispatchers = [broken, odd, other]
    if setting == "added":
        dispatchers.reverse()  # each at the head
    async with fast_service(dispatchers, setting, Slow()) as (server, messenger):
        con = await session(server, messenger)
        for front in (b"odd", b"even"):
            await ask(con, FAST, front)
    assert (odd.noted("fast"), other.noted("fast")) == ([b"odd"], [b"even"])
    assert broken.noted("fast") == []


@everywhere
@on_uvloop
async def test_a_reply_that_somebody_waits_for_is_not_taken_from_him(setting: str) -> None:
    watcher = Watcher()

    def plugin(site: object) -> list[Any]:
        @handles(SLOW)
        async def slow(con: Connection, m: Message) -> Message:
            reply = await con.request(Message(FAST, b"question"))
            return m.reply(reply.front)

        return [slow]

    class Answers(Recorder):
        def dispatch(self, con: Connection, m: Message) -> None:
            con.send_message(m.reply(b"answer"))

    async with fast_service(watcher, setting, plugin) as (server, messenger):
        messenger.add_dispatcher_tail(Answers(FAST))
        con = await session(server, messenger)
        assert text(await ask(con, SLOW, b"ask me")) == "answer"
        assert watcher.noted("sees") == [b"ask me", b"answer"]
        assert watcher.noted("fast") == []


@on_uvloop
async def test_without_a_fast_dispatcher_nothing_is_in_between() -> None:
    async with serving() as server:
        before = server.driver.sink
        server.add_dispatcher_tail(Recorder())
        assert server.driver.sink is before
        assert not isinstance(before, FastSink)
        quick = Quick()
        server.add_dispatcher_tail(quick)
        assert isinstance(server.driver.sink, FastSink)
        async with Messenger("client.?") as messenger:
            await ask(await connected(messenger, place(server)), FAST, b"x")
        assert quick.noted("fast") == [b"x"]


# order


@everywhere
@on_uvloop
async def test_fast_accept_comes_before_every_message_of_the_socket(setting: str) -> None:
    quick = Quick()
    async with fast_service(quick, setting, Slow()) as (server, messenger):
        con = await session(server, messenger)
        for number in range(3):
            asked = ask(con, FAST, b"%d" % number)
            await asked
            assert con.session.pipe is not None
            con.session.pipe.handle.abort()  # type: ignore[attr-defined]
            await ask(con, FAST, b"again")
        names = [name for name, *_ in quick.log]
        assert names == ["accept", "fast", *["accept", "fast", "fast"] * 2, "accept", "fast"]
        assert len({id(con) for con in quick.cons}) == 1, "the same connection"
        assert len({id_ for _, id_, _ in quick.log}) == 1


@everywhere
@on_uvloop
async def test_a_fast_message_overtakes_those_that_go_the_usual_way(setting: str) -> None:
    order: list[bytes] = []

    def plugin(site: object) -> list[Any]:
        @handles(SLOW)
        def slow(con: Connection, m: Message) -> None:
            order.append(bytes(m.front))

        return [slow]

    quick = Does(lambda con, m: order.append(bytes(m.front)))
    async with fast_service(quick, setting, plugin) as (server, messenger):
        con = await session(server, messenger)
        for type_, front in ((SLOW, b"a"), (FAST, b"b"), (SLOW, b"c"), (FAST, b"d")):
            con.send_message(Message(type_, front))
        await eventually_async(lambda: len(order) == 4)
    assert order == [b"b", b"d", b"a", b"c"]  # all of them came in one read


@pytest.mark.parametrize("setting", ["added", "local"])
@on_uvloop
async def test_of_a_session_that_we_opened(setting: str) -> None:
    quick = Quick()
    async with fast_service(quick, setting, Slow()) as (server, _), serving() as other:
        con = await connected(server, place(other))
        assert quick.log == [("connect", con.id, b"")]
        await ask(con, 0x8001, b"x")


# what goes wrong


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (lambda: ValueError("x"), 2, "handler failed: ValueError: x"),
        (lambda: SystemExit(3), 2, "handler failed: SystemExit: 3"),
        (lambda: RemoteError(1234, "no"), 1234, "no"),
        (lambda: Reject("not you", code=77), 77, "not you"),
        (lambda: PayloadError(FAST, "odd"), 3, "odd"),
    ],
)
@everywhere
@on_uvloop
async def test_an_exception_is_an_error_reply(
    setting: str, error: Callable[[], BaseException], code: int, said: str
) -> None:
    def fail(con: Connection, m: Message) -> None:
        con.send_message(Message(PUSH, b"sent before"))
        raise error()

    async with fast_service(Does(fail), setting, Slow()) as (server, messenger):
        con = await session(server, messenger)
        pushes = con.messages(PUSH)
        assert await refused(ask(con, FAST)) == (code, said)
        assert (await anext(pushes)).front == b"sent before", "it leaves at once"
        assert server.statistics()["fast_failed"] == 1


@everywhere
@on_uvloop
async def test_a_traceback_is_logged(setting: str, caplog: pytest.LogCaptureFixture) -> None:
    class Bad(Watcher):
        def handle_fast_accept(self, con: Connection) -> None:
            raise ValueError("accept")

        def fast_preprocess(self, con: Connection, m: Message) -> None:
            raise ValueError("preprocess")

        def fast_dispatch(self, con: Connection, m: Message) -> None:
            raise ValueError("dispatch")

    async with fast_service(Bad(), setting, Slow()) as (server, messenger):
        con = await session(server, messenger)
        await refused(ask(con, FAST))
        assert text(await ask(con, SLOW, b"1")) == "slow 1"
    for said in ("accept", "preprocess", "dispatch"):
        assert f"ValueError: {said}" in caplog.text
    assert "Bad: fast_preprocess of <" in caplog.text


@pytest.mark.parametrize("callback", AT_ONCE)
def test_what_has_to_answer_at_once_cannot_be_async(callback: str) -> None:
    async def later(self: object, *args: object) -> None:
        """Never called."""

    late = type("Late", (Dispatcher,), {callback: later})()
    chain = Chain()
    for add in (chain.add_head, chain.add_tail):
        with pytest.raises(PluginError, match=f"Late: {callback} is async"):
            add(late)
    assert len(chain) == 0


# the budget


class Clock:
    """Stands still but for what a handler takes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr(fast_module, "perf_counter", lambda: self.now)

    def takes(self, seconds: float) -> None:
        self.now += seconds


@everywhere
@on_uvloop
async def test_who_takes_too_long_is_counted_and_named(
    setting: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)

    class Dozes(Quick):
        def fast_preprocess(self, con: Connection, m: Message) -> None:
            clock.takes(float(m.front))

        def fast_dispatch(self, con: Connection, m: Message) -> None:
            clock.takes(float(m.front))
            super().fast_dispatch(con, m)

    async with fast_service(Dozes(), setting, Slow()) as (server, messenger):
        con = await session(server, messenger)
        for front in (b"0.0009", b"0.0021", b"0.5", b"0.0011"):
            await ask(con, FAST, front)
        assert server.statistics()["fast_over_budget"] == 6
        lines = [r.getMessage() for r in caplog.records if "budget" in r.getMessage()]
        assert [line.partition("<locals>.")[2] for line in lines] == [
            "Dozes.fast_preprocess took 2.1 ms, its budget is 1 ms",
            "Dozes.fast_dispatch took 2.1 ms, its budget is 1 ms",
        ]
        clock.takes(5.0)
        await ask(con, FAST, b"0.002")
        assert "2.0 ms, its budget is 1 ms (2 lines like this held back)" in caplog.text


@on_uvloop
async def test_a_budget_of_nought_is_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock(monkeypatch)
    quick = Does(lambda con, m: clock.takes(100.0))
    async with fast_service(quick, "added", Slow(), fast_budget_s=0) as (server, messenger):
        con = await session(server, messenger)
        con.send_message(Message(FAST))
        await eventually_async(lambda: server.statistics()["fast_dispatched"])
        assert server.statistics()["fast_over_budget"] == 0
    assert "budget" not in caplog.text


# acks, outboxes, memory


@everywhere
@on_uvloop
async def test_what_is_dispatched_fast_is_handled(setting: str) -> None:
    policies = Policies(replace(STATEFUL_SERVER, ack="handled"))
    async with fast_service(Quick(), setting, Slow(), policies=policies) as (server, messenger):
        con = await session(server, messenger)
        for _ in range(5):
            await asyncio.gather(ask(con, FAST), ask(con, SLOW), ask(con, FAST))
        await eventually_async(lambda: con.session.outbox.nbytes == 0, what="all acknowledged")
        (served,) = server.endpoint.registry
        assert served.handled is not None
        assert served.handled.prefix == served.in_seq == 15


@everywhere
@on_uvloop
async def test_requests_of_a_full_session_wait_for_room(setting: str) -> None:
    policies = Policies(replace(STATEFUL_SERVER, outbox_bytes=10_000, ack="handled"))
    quick = Quick()
    async with fast_service(quick, setting, Slow(), policies=policies) as (server, messenger):
        con = await session(server, messenger)
        (served,) = server.endpoint.registry
        with Deaf(con):
            asked = [ask(con, FAST, b"%d" % i, data=bytes(2000)) for i in range(40)]
            await eventually_async(lambda: served.in_seq == 40)
            assert len(quick.log) < 10
            assert served.outbox.nbytes < 20_000
            assert served.handled is not None
            assert served.handled.prefix < 10
        await asyncio.gather(*asked)
        assert quick.noted("fast") == [b"%d" % i for i in range(40)]


@everywhere
@on_uvloop
async def test_a_peer_that_never_reads_does_not_fill_the_memory(setting: str) -> None:
    policies = Policies(replace(STATEFUL_SERVER, outbox_bytes=10_000))
    quick = Quick()
    async with fast_service(quick, setting, Slow(), policies=policies) as (server, messenger):
        con = await session(server, messenger)
        with Deaf(con):
            asked = [ask(con, FAST, b"%d" % i, data=bytes(2000)) for i in range(400)]
            await eventually_async(lambda: server.endpoint.counters.overruns)
        await asyncio.gather(*asked)
        assert quick.noted("fast") == [b"%d" % i for i in range(400)]


@everywhere
@on_uvloop
async def test_what_waits_is_forgotten_with_its_session(setting: str) -> None:
    policies = Policies(replace(STATEFUL_SERVER, outbox_bytes=10_000, ack="handled"))
    quick = Quick()
    async with fast_service(quick, setting, Slow(), policies=policies) as (server, messenger):
        con = await session(server, messenger)
        (served,) = server.endpoint.registry
        transport: Any = con.session.pipe and con.session.pipe.handle
        transport.pause_reading()
        asked = [ask(con, FAST, b"%d" % i, data=bytes(2000)) for i in range(40)]
        await eventually_async(lambda: served.in_seq == 40)
        done = len(quick.log)
        server.endpoint.reset_session(served, "for the test")
        server.driver.run()
        assert len(quick.log) == done
        assert fast_sink(server)._held == {}
        server.mark_down_all()
        for each in asked:
            each.cancel()
        con.mark_down()


@on_uvloop
async def test_nothing_that_is_kept_keeps_shared_memory() -> None:
    kept: list[Any] = []

    def keep(con: Connection, m: Message) -> None:
        kept.append(m)
        con.send_message(m.reply(m.front, m.middle, m.data))

    async with fast_service(Does(keep), "pool", Slow()) as (server, messenger):
        con = await session(server, messenger)
        data = bytes(range(256)) * 2000
        replies = [await ask(con, FAST, b"%d" % i, data=data) for i in range(12)]  # 6 of 4 MB
        assert all(bytes(reply.data) == data for reply in replies)
        assert [type(m.data) for m in kept] == [bytes] * 12
        assert text(await ask(con, SLOW, b"x", data=data)) == "slow x"


@on_uvloop
async def test_what_is_seen_in_shared_memory_cannot_be_written_to() -> None:
    tried: list[str] = []

    class Writes(Quick):
        def fast_preprocess(self, con: Connection, m: Message) -> None:
            try:
                m.data[0] = 1  # type: ignore[index]
            except TypeError as err:
                tried.append(str(err))

    async with fast_service(Writes(), "pool", Slow()) as (server, messenger):
        con = await session(server, messenger)
        assert text(await ask(con, SLOW, b"x", data=bytes(200_000))) == "slow x"
    assert tried == ["cannot modify read-only memory"]


# what a connection can do there


@everywhere
@on_uvloop
async def test_facts_of_the_connection(setting: str) -> None:
    quick = Quick()
    async with fast_service(quick, setting, Slow()) as (server, messenger):
        con = await session(server, messenger)
        (there,) = quick.cons
        (served,) = server.endpoint.registry
        assert (there.id, there.peer_addr) == (served.id, served.peer_addr)
        assert (there.peer_is("client"), there.peer_is(0x08), there.peer_is("osd")) == (
            *(True, True),
            False,
        )
        assert there.features == con.features != 0
        assert there.has_feature(1 | there.features)
        assert (there.is_connected, there.failed, there.last_keepalive) == (True, False, None)
        con.send_keepalive()
        await eventually_async(lambda: there.last_keepalive)
        there.send_keepalive()
        await eventually_async(lambda: there.last_keepalive_ack)
        there.priv = "kept"
        await ask(con, FAST)
        assert quick.cons == [there]
        there.mark_disposable()
        assert served.lossy


@everywhere
@on_uvloop
async def test_what_is_sent_to_others(setting: str) -> None:
    def tell(con: Connection, m: Message) -> None:
        if m.front == b"join":
            con.group("all").join()
        else:
            assert con.connection(int(m.front)).send_message(Message(PUSH, b"to one"))
            con.group("all").send(Message(PUSH, b"to all"))
            con.send_message(m.reply(b"done"))

    does = Does(tell)
    async with fast_service(does, setting, Slow()) as (server, messenger):
        con = await session(server, messenger)
        pushes = con.messages(PUSH)
        con.send_message(Message(FAST, b"join"))
        async with Messenger("client.?", drain_s=0.1) as second:
            other = await session(server, second)
            assert text(await ask(other, FAST, does.cons[0].id)) == "done"
        assert [(await anext(pushes)).front for _ in range(2)] == [b"to one", b"to all"]
        (there, _) = does.cons
        await eventually_async(lambda: does.cons[1].failed)
        assert not does.cons[1].send_message(Message(PUSH))
        gone = there.connection(does.cons[1].id)
        assert (gone.failed, gone.send_message(Message(PUSH))) == (True, False)
        assert not await gone.send(Message(PUSH))


@on_uvloop
async def test_what_it_cannot_do() -> None:
    said: list[Exception] = []

    def want(con: Connection, m: Message) -> None:
        for wish in (lambda: con.request(Message(PUSH)), lambda: con.state):
            try:
                wish()
            except Exception as err:
                said.append(err)
        con.send_message(m.reply())

    async with fast_service(Does(want), "pool", Slow()) as (server, messenger):
        await ask(await session(server, messenger), FAST)
    assert isinstance(said[0], HandlerError)
    assert "cannot wait" in str(said[0])
    assert "only for the handler of a message" in str(said[1])


@everywhere
@on_uvloop
async def test_a_push_to_a_full_outbox(setting: str) -> None:
    policies = Policies(replace(STATEFUL_SERVER, outbox_bytes=10_000))
    sent: list[bool] = []
    said: list[int] = []

    def flood(con: Connection, m: Message) -> None:
        try:
            while True:
                sent.append(con.send_message(Message(PUSH, data=bytes(1000))))
        except OutboxFull as full:
            said.append(full.limit)

    async with fast_service(Does(flood), setting, Slow(), policies=policies) as (_, messenger):
        con = await session(_, messenger)
        pushes = con.messages(PUSH)
        con.send_message(Message(FAST))
        for _n in range(9):
            await anext(pushes)
        assert (sent, said) == ([True] * 9, [10_000])


@everywhere
@on_uvloop
async def test_mark_down_from_a_fast_callback(setting: str) -> None:
    slow = Slow()

    def end(con: Connection, m: Message) -> None:
        assert con.send_message(m.reply(b"goodbye")) or m.front != b"1"
        con.mark_down()
        assert con.failed
        assert not con.send_message(m.reply(b"too late"))

    quick = Does(end)
    async with fast_service(quick, setting, slow) as (server, messenger):
        con = await session(server, messenger)
        for i in range(1, 5):
            con.send_message(Message((SLOW, FAST)[i % 2], b"%d" % i))
        await eventually_async(lambda: con.last_reset, what="the peer is told")
        assert server.statistics()["fast_dispatched"] == 1
        assert text(await ask(con, SLOW, b"in a new session")) == "slow in a new session"


@everywhere
@on_uvloop
async def test_mark_down_before_the_first_message(setting: str) -> None:
    class Shuts(Quick):
        def handle_fast_accept(self, con: Connection) -> None:
            super().handle_fast_accept(con)
            if len(self.cons) == 1:
                con.mark_down()

    shuts = Shuts()
    async with fast_service(shuts, setting, Slow()) as (server, messenger):
        con = peer(messenger, place(server))
        await eventually_async(lambda: con.last_reset, what="the peer is told")
        assert text(await ask(con, SLOW, b"x")) == "slow x"
        assert len(shuts.cons) == 2
        assert len(server.endpoint.registry) == 1


# a messenger that talks to itself


@on_uvloop
async def test_local_messages() -> None:
    watcher, recorder = Watcher(), Recorder()
    async with serving(recorder) as server:
        server.add_dispatcher_tail(watcher)
        con = server.get_loopback_connection()
        assert con is server.get_connection(place(server))
        assert [name for name, *_ in watcher.log] == ["connect"] * 2
        assert set(watcher.cons) == {con, con.other}
        reply = await con.request(Message(FAST, b"1"), timeout=5)
        assert reply.front == b"1"
        await con.request(Message(0x8001, b"2"), timeout=5)
        assert watcher.noted("fast") == [b"1"]
        assert watcher.noted("sees") == [b"1", b"1", b"2", b"2"], "replies too"
        assert [bytes(m.front) for m in recorder.messages] == [b"2"]
        con.priv = "mine"
        await server.rebind()
        assert [name for name, *_ in watcher.log].count("connect") == 4
    assert con.priv is None
    assert con.failed


@on_uvloop
async def test_io_dispatchers_are_started_and_stopped() -> None:
    class Lives(Quick):
        def on_start(self) -> None:
            self.log.append(("start", 0, b""))

        async def on_stop(self) -> None:
            self.log.append(("stop", 0, b""))

    for setting in ("local", "pool"):
        lives = Lives()
        async with fast_service(lives, setting, Slow()):
            assert lives.log == [("start", 0, b"")]
        assert lives.log[-1] == ("stop", 0, b"")


@on_uvloop
async def test_it_costs_no_log_line_per_message(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mpmsgr.dispatch")
    async with fast_service(Watcher(), "pool", Slow()) as (server, messenger):
        con = await session(server, messenger)
        await asyncio.gather(*(ask(con, FAST) for _ in range(20)))
    assert not [r for r in caplog.records if r.name == "mpmsgr.dispatch" and "took" not in r.msg]
