"""Running dispatchers: one callback of a connection at a time, whatever it does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from mpmsgr import Connection, Dispatcher, ErrorCode, Message, RemoteError, SessionReset
from mpmsgr.dispatch.chain import Chain
from mpmsgr.dispatch.dispatcher import Result, Task
from mpmsgr.dispatch.group import Service
from mpmsgr.dispatch.handling import DEFAULT, Handling
from mpmsgr.dispatch.invocation import Invocation
from mpmsgr.dispatch.payload import PayloadError, unpack
from mpmsgr.dispatch.serial import HELD, Serial
from mpmsgr.dispatch.verdicts import Poison, Reject, Retry, Verdict
from mpmsgr.messenger import refusals
from mpmsgr.messenger import runner as runner_module
from mpmsgr.messenger.runner import Runner
from mpmsgr.wire.message import ERROR_REPLY
from tests.support import eventually_async
from tests.unit.messenger_peers import (
    ECHO,
    SILENT,
    Recorder,
    both_loops,
    client,
    connected,
    pending,
    place,
    serving,
)

TYPE = 0x9001


class Peer:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.lane = Serial()

    def send_message(self, m: Message, data: bytes = b"") -> bool:
        self.sent.append(m)
        return True


class Calls(Dispatcher):
    """Whose `dispatch` is a function of the test."""

    def __init__(self, function: Callable[[Message], Any], handling: Handling = DEFAULT) -> None:
        self.function, self._handling = function, handling

    def dispatch(self, con: Connection, m: Message) -> Any:
        return self.function(m)

    def handling(self, type_: int) -> Handling:
        return self._handling


class Host:
    """Notes what it is told, of which item; done: connections of what has completed; resumptions:
    numbers of what had to wait; errors: that broke it.
    """

    def __init__(self) -> None:
        self.errors: list[BaseException | None] = []
        self.resumptions: list[int] = []
        self.told: list[tuple[object, ...]] = []
        self.done: list[object] = []

    def _note(self, what: str, run: Invocation, *more: object) -> None:
        item = run.item if isinstance(run.item, str) else run.item.tid
        self.told.append((what, item, *more))

    def begun(self, run: Invocation) -> None:
        self._note("begun", run)

    def suspended(self, run: Invocation) -> None:
        self._note("suspended", run)

    def resumed(self, lane: Serial, number: int) -> None:
        self.resumptions.append(number)

    def completed(self, run: Invocation) -> None:
        self._note("completed", run)
        self.done.append(run.con)

    def undone(self, run: Invocation) -> None:
        self._note("undone", run)

    def retry(self, run: Invocation, after: float) -> None:
        self._note("retry", run, after)

    def poisoned(self, run: Invocation, reason: str) -> None:
        self._note("poisoned", run, reason)

    def broken(self) -> None:
        self.errors.append(sys.exception())


def hosted(*dispatchers: Dispatcher) -> tuple[Runner[Any], Host]:
    """A runner, and its host."""
    chain, host = Chain(), Host()
    for dispatcher in dispatchers:
        chain.add_tail(dispatcher)
    return Runner[Any](chain, host, cast(Service, None)), host


def runner_of(*dispatchers: Dispatcher) -> tuple[Runner[Any], list[object]]:
    """A runner, and the list of the connections of what it has completed."""
    runner, host = hosted(*dispatchers)
    return runner, host.done


def numbered(count: int) -> list[Message]:
    return [Message(TYPE, b"%d" % i, tid=i + 1) for i in range(count)]


@both_loops
async def test_async_callbacks_of_a_lane_do_not_overlap() -> None:
    log: list[str] = []

    async def handle(m: Message) -> None:
        log.append(f"begin {m.tid}")
        for _ in range(m.tid % 3):
            await asyncio.sleep(0)
        log.append(f"end {m.tid}")

    def either(m: Message) -> Awaitable[None] | None:
        if m.tid % 4:
            return handle(m)
        log.extend((f"begin {m.tid}", f"end {m.tid}"))
        return None

    runner, done = runner_of(Calls(either))
    peer = Peer()
    for m in numbered(12):
        runner.submit(peer.lane, peer, m)
    await runner.stop()
    assert log == [f"{what} {tid}" for tid in range(1, 13) for what in ("begin", "end")]
    assert done == [peer] * 12


@both_loops
async def test_lanes_do_not_wait_for_each_other() -> None:
    gate, log = asyncio.Event(), list[int]()

    async def handle(m: Message) -> None:
        if m.tid == 1:
            await gate.wait()
        log.append(m.tid)

    runner, _ = runner_of(Calls(handle))
    peers = [Peer(), Peer()]
    for m in numbered(4):
        peer = peers[m.tid > 2]
        runner.submit(peer.lane, peer, m)
    await eventually_async(lambda: log == [3, 4])
    gate.set()
    await runner.stop()
    assert log == [3, 4, 1, 2]


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ValueError("x"), ErrorCode.HANDLER_FAILED, "handler failed: ValueError: x"),
        (RemoteError(1234, "no"), 1234, "no"),
        (PayloadError(TYPE, "odd"), ErrorCode.BAD_PAYLOAD, "odd"),
        (SessionReset("there", 2), ErrorCode.HANDLER_FAILED, "handler failed: SessionReset: "),
        (SystemExit(3), ErrorCode.HANDLER_FAILED, "handler failed: SystemExit: 3"),
        (asyncio.CancelledError(), ErrorCode.HANDLER_FAILED, "handler failed: CancelledError: "),
        (ValueError("x" * 10_000), ErrorCode.HANDLER_FAILED, "handler failed: ValueError: xxx"),
    ],
)
@both_loops
async def test_an_exception_is_an_error_reply(
    error: BaseException, code: int, text: str, later: bool
) -> None:
    def fail(m: Message) -> None:
        raise error

    async def fail_later(m: Message) -> None:
        await asyncio.sleep(0)
        raise error

    runner, done = runner_of(Calls(fail_later if later else fail))
    peer = Peer()
    runner.submit(peer.lane, peer, Message(TYPE, tid=7, priority=200))
    await runner.stop()
    (reply,) = peer.sent
    assert (reply.type, reply.tid, reply.priority, len(done)) == (ERROR_REPLY, 7, 200, 1)
    facts = unpack(reply)
    assert facts["code"] == code
    assert facts["text"].startswith(text)
    assert len(facts["text"]) <= 4096


@both_loops
async def test_a_handler_whose_task_was_cancelled_answers_too() -> None:
    async def handle(m: Message) -> None:
        other = asyncio.ensure_future(asyncio.sleep(60))
        other.cancel()
        await other

    runner, done = runner_of(Calls(handle))
    peer = Peer()
    for m in numbered(2):
        runner.submit(peer.lane, peer, m)
    await runner.stop()
    assert [unpack(m)["text"] for m in peer.sent] == ["handler failed: CancelledError: "] * 2
    assert done == [peer, peer]


@both_loops
async def test_who_cannot_read_an_error_reply_gets_none() -> None:
    runner, _ = runner_of(Calls(lambda m: 1 / 0))
    peer = Peer()
    for m in (Message(17, tid=5), Message(TYPE, tid=0), Message(ERROR_REPLY, tid=5)):
        runner.submit(peer.lane, peer, m)
    assert peer.sent == []


@both_loops
async def test_only_false_passes_a_message_on() -> None:
    asked: list[str] = []

    def answer(name: str, value: object, later: bool) -> Dispatcher:
        async def give_later(m: Message) -> object:
            asked.append(name)
            return value

        def give(m: Message) -> object:
            asked.append(name)
            return value

        return Calls(give_later if later else give)

    for first in (False, True):
        for second in (False, True):
            for taken in (None, True):
                asked.clear()
                chain = [answer("a", False, first), answer("b", taken, second)]
                runner, _ = runner_of(*chain, answer("c", None, False))
                peer = Peer()
                runner.submit(peer.lane, peer, Message(TYPE, tid=1))
                await runner.stop()
                assert asked == ["a", "b"]
                assert peer.sent == []


@pytest.mark.parametrize("later", [False, True])
@both_loops
async def test_a_message_everybody_passes_on(later: bool) -> None:
    async def no_later(m: Message) -> bool:
        return False

    runner, done = runner_of(Calls(no_later if later else lambda m: False))
    peer = Peer()
    runner.submit(peer.lane, peer, Message(TYPE, tid=1))
    await runner.stop()
    assert [unpack(m)["code"] for m in peer.sent] == [ErrorCode.UNHANDLED]
    assert done == [peer]


# what the host is told


def either(function: Callable[[Message], Any], later: bool) -> Callable[[Message], Any]:
    """*function*, or a coroutine function that does the same after a turn of the loop."""

    async def call(m: Message) -> Any:
        await asyncio.sleep(0)
        return function(m)

    return call if later else function


@both_loops
async def test_the_host_hears_of_a_handler_that_goes_on_in_a_task() -> None:
    runner, host = hosted(Calls(either(lambda m: None, later=True)))
    peer = Peer()
    for m in numbered(2):
        runner.submit(peer.lane, peer, m)
    await runner.stop()
    one, two = [[("suspended", tid), ("completed", tid)] for tid in (1, 2)]
    assert host.told == one + two


@both_loops
async def test_the_host_hears_of_a_handler_with_a_way_of_its_own_before_it_runs() -> None:
    runner, host = hosted(Calls(lambda m: host.told.append(("runs",)), Handling(hard_s=1.0)))
    peer = Peer()
    runner.submit(peer.lane, peer, Message(TYPE, tid=5))
    assert host.told == [("begun", 5), ("runs",), ("completed", 5)]


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("raised", [False, True])
@pytest.mark.parametrize(
    ("verdict", "told", "code", "text"),
    [
        (Retry(0.5), [("undone", 7), ("retry", 7, 0.5)], None, None),
        (Reject("no"), [("undone", 7), ("completed", 7)], ErrorCode.REJECTED, "no"),
        (Reject("no", code=1234), [("undone", 7), ("completed", 7)], 1234, "no"),
        (
            Poison("bad"),
            [("undone", 7), ("poisoned", 7, "bad"), ("completed", 7)],
            ErrorCode.QUARANTINED,
            "poison: bad",
        ),
    ],
)
@both_loops
async def test_verdicts(
    verdict: Verdict, told: list[object], code: int | None, text: str, raised: bool, later: bool
) -> None:
    def judge(m: Message) -> Verdict:
        if raised:
            raise verdict
        return verdict

    runner, host = hosted(Calls(either(judge, later)))
    peer = Peer()
    runner.submit(peer.lane, peer, Message(TYPE, tid=7))
    await runner.stop()
    assert [one for one in host.told if one[0] != "suspended"] == told
    answers = [unpack(m) for m in peer.sent]
    assert answers == ([] if code is None else [{"code": code, "text": text}])


@both_loops
async def test_an_error_is_undone_before_it_is_told() -> None:
    runner, host = hosted(Calls(lambda m: 1 / 0))
    peer = Peer()
    runner.submit(peer.lane, peer, Message(TYPE, tid=7))
    assert host.told == [("undone", 7), ("completed", 7)]
    assert [unpack(m)["code"] for m in peer.sent] == [ErrorCode.HANDLER_FAILED]


@both_loops
async def test_a_lane_that_is_blocked_waits_and_goes_on_in_order() -> None:
    runner, host = hosted(Calls(lambda m: None))
    peer, other = Peer(), Peer()
    peer.lane.blocked |= HELD
    for m in numbered(3):
        runner.submit(peer.lane, peer, m, number=10 * m.tid)
    runner.submit(other.lane, other, Message(TYPE, tid=9))
    assert host.told == [("completed", 9)]
    runner.unblock(peer.lane, HELD)
    assert host.told == [("completed", tid) for tid in (9, 1, 2, 3)]
    assert host.resumptions == [10, 20, 30, 0]


@both_loops
async def test_the_callback_that_runs_is_known_while_it_runs() -> None:
    seen: list[object] = []

    def note(m: Message) -> None:
        run = runner.current()
        seen.append(run and run.item)

    async def note_twice(m: Message) -> None:
        note(m)
        await asyncio.sleep(0)
        note(m)

    runner, _ = hosted(Calls(lambda m: note_twice(m) if m.tid % 2 else note(m)))
    peers = [Peer() for _ in range(4)]
    messages = numbered(4)
    for peer, m in zip(peers, messages, strict=True):
        runner.submit(peer.lane, peer, m)
        assert runner.current() is None
    await runner.stop()
    first, second, third, fourth = messages
    assert seen == [second, fourth, first, third, first, third]


@pytest.mark.parametrize("error", [ValueError("once"), SystemExit(3)])
@pytest.mark.parametrize("later", [False, True])
@both_loops
async def test_regular_calls(
    later: bool, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[object] = []

    async def fail_later(service: Service) -> None:
        await asyncio.sleep(0)
        fail(service)

    def fail(service: Service) -> None:
        calls.append(service)
        raise error

    class Regular(Dispatcher):
        def every(self) -> list[Task]:
            return [Task("shop.clean", 1.0, fail_later if later else fail)]

    runner, done = runner_of(Regular())
    peer = Peer()
    runner.submit(peer.lane, peer, "shop.clean")
    await runner.stop()
    assert (calls, done) == ([None], [peer])
    assert "shop.clean failed" in caplog.text


# events


class Listens(Dispatcher):
    """Notes events; fails, or stops the chain, if told to."""

    def __init__(self, log: list[str], name: str, does: object, later: bool) -> None:
        self.log, self.name, self.does, self.later = log, name, does, later

    def handle_reset(self, con: Connection) -> Result:
        return self._later() if self.later else self._now()

    handle_accept = handle_reset

    def _now(self) -> Any:
        self.log.append(self.name)
        if isinstance(self.does, BaseException):
            raise self.does
        return self.does

    async def _later(self) -> Any:
        await asyncio.sleep(0)
        return self._now()


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("event", "does", "asked"),
    [
        ("reset", None, "ab"),
        ("reset", True, "a"),
        ("reset", ValueError("x"), "ab"),
        ("accept", True, "ab"),
        ("accept", ValueError("x"), "ab"),
        ("accept", asyncio.CancelledError(), "ab"),
        ("reset", SystemExit(3), "ab"),
    ],
)
@both_loops
async def test_events(event: str, does: object, asked: str, later: bool) -> None:
    log: list[str] = []
    runner, done = runner_of(Listens(log, "a", does, later), Listens(log, "b", None, later))
    peer = Peer()
    runner.submit(peer.lane, peer, event)
    await runner.stop()
    assert "".join(log) == asked
    assert done == [peer]


@both_loops
async def test_events_and_messages_take_turns() -> None:
    log: list[str] = []

    async def handle(m: Message) -> None:
        await asyncio.sleep(0)
        log.append(bytes(m.front).decode())

    runner, _ = runner_of(Calls(handle), Listens(log, "accept", None, True))
    peer = Peer()
    first, second = numbered(2)
    for item in (first, "accept", second):
        runner.submit(peer.lane, peer, item)
    await runner.stop()
    assert log == ["0", "accept", "1"]


# start and stop


@both_loops
async def test_start_and_stop(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    class Hooks(Dispatcher):
        def __init__(self, name: str, fails: bool = False) -> None:
            self.name, self.fails = name, fails

        async def on_start(self) -> None:
            log.append(f"start {self.name}")

        def on_stop(self) -> None:
            log.append(f"stop {self.name}")
            if self.fails:
                raise ValueError("at the end")

    runner, _ = runner_of(Hooks("a"), Hooks("b", fails=True))
    await runner.start()
    await runner.stop()
    await runner.stop()
    assert log == ["start a", "start b", "stop b", "stop a"]
    assert "b: on_stop failed" in caplog.text


@both_loops
async def test_cancel_ends_what_runs_and_what_waits() -> None:
    begun: list[int] = []

    async def hang(m: Message) -> None:
        begun.append(m.tid)
        await asyncio.sleep(3600)

    runner, _ = runner_of(Calls(hang))
    peer, late = Peer(), Peer()
    for m in numbered(5):
        runner.submit(peer.lane, peer, m)
    await eventually_async(lambda: begun)
    runner.submit(late.lane, late, Message(TYPE, tid=9))  # its task has not begun yet
    runner.cancel()
    await asyncio.wait_for(runner.stop(), 5)
    assert begun in ([1], [1, 9])


@both_loops
async def test_shutdown_gives_up_handlers_that_do_not_end() -> None:
    class Hangs(Recorder):
        async def dispatch(self, con: Connection, m: Message) -> None:  # type: ignore[override]
            self.messages.append(m)
            await asyncio.sleep(3600)

    seen = Hangs(SILENT)
    async with serving(seen, drain_s=0.05) as server, client() as messenger:
        con = await connected(messenger, place(server))
        tasks = [asyncio.ensure_future(con.request(Message(SILENT))) for _ in range(5)]
        await eventually_async(lambda: seen.messages)
        await asyncio.wait_for(server.shutdown(), 5)
        assert server.unfinished
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, SessionReset | RemoteError)
        assert (len(seen.messages), pending(con)) == (1, 0)


@both_loops
async def test_shutdown_waits_for_handlers_that_end() -> None:
    class Slow(Recorder):
        async def dispatch(self, con: Connection, m: Message) -> None:  # type: ignore[override]
            self.messages.append(m)
            await asyncio.sleep(0.02)
            con.send_message(m.reply(m.front))

    seen = Slow()
    async with serving(seen, drain_s=5) as server, client() as messenger:
        con = await connected(messenger, place(server))
        tasks = [asyncio.ensure_future(con.request(Message(ECHO, b"%d" % i))) for i in range(5)]
        await eventually_async(lambda: seen.messages)
        assert (await server.shutdown(), server.unfinished) == (0, False)
        replies: list[Message] = await asyncio.gather(*tasks)
        assert b"".join(bytes(m.front) for m in replies) == b"01234"


@both_loops
async def test_what_nobody_handles_is_counted_and_seldom_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(runner_module, "monotonic", lambda: now)
    runner, _ = runner_of()
    peer = Peer()
    for m in numbered(50):
        runner.submit(peer.lane, peer, m)
    assert (runner.unhandled, len(peer.sent)) == (50, 50)
    now = 106.0
    runner.submit(peer.lane, peer, Message(TYPE + 1, tid=7))
    first, second = [r.getMessage() for r in caplog.records]
    assert first.startswith("nobody handles message type 0x9001 from <")
    assert second.startswith("nobody handles message type 0x9002 from <")
    assert second.endswith("(49 lines like this held back)")


@both_loops
async def test_payloads_that_do_not_fit_are_seldom_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(refusals, "monotonic", lambda: now)
    runner, _ = runner_of(Calls(unpack))
    peer = Peer()
    for m in [Message(TYPE, b"\xc1", tid=i + 1) for i in range(50)]:
        runner.submit(peer.lane, peer, m)
    now = 106.0
    runner.submit(peer.lane, peer, Message(TYPE + 1, b"\xc1", tid=51))
    assert (runner.failed, len(peer.sent)) == (0, 51)
    first, second = [r.getMessage() for r in caplog.records]
    assert first.startswith("payload of message type 0x9001: front is no msgpack: ")
    assert second.startswith("payload of message type 0x9002: front is no msgpack: ")
    assert second.endswith("(49 lines like this held back)")
