"""The generator against servers in the same process that keep, or break, the promises."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgpack
import pytest

from mpmsgr import Connection, Dispatcher, Message, Messenger
from mpmsgr.errors import ConnectError
from mpmsgr.load.generator import Counts, Generator
from mpmsgr.load.plan import LoadPlan
from mpmsgr.load.report import LoadReport
from mpmsgr.messenger.connection import MessengerConnection
from tests.loopback import ANY_PORT

Handler = Callable[[Connection, Message], None]


class Server(Dispatcher):
    """Hands every request to a function."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    def dispatch(self, con: Connection, m: Message) -> bool | None:
        self._handler(con, m)
        return True


def echo(con: Connection, m: Message) -> None:
    con.send_message(m.reply(front=m.front, middle=m.middle, data=m.data))


def fail(con: Connection, m: Message) -> None:
    con.send_message(m.reply(front=msgpack.packb({"code": 9, "text": "no"}), type=0x8000))


def special(tid: int, handler: Handler) -> Handler:
    """Echo, but *handler* for request *tid*."""
    return lambda con, m: (handler if m.tid == tid else echo)(con, m)


def load(
    handler: Handler,
    *,
    seen: list[Counts] | None = None,
    stop_at: int | None = None,
    **fields: object,
) -> LoadReport:
    """The report of a run; *stop_at* so many requests the generator is told to stop."""
    plan_fields = {"clients": 3, "in_flight": 4, "count": 60, "reply_timeout_s": 0.3, **fields}

    async def main() -> LoadReport:
        async with Messenger("svc.0") as server:
            server.add_dispatcher_tail(Server(handler))
            address = await server.bind(ANY_PORT)
            plan = LoadPlan.from_dict({"address": str(address), **plan_fields})
            generator = Generator(plan, (seen if seen is not None else []).append)
            await generator.connect()
            try:
                running = asyncio.create_task(generator.run())
                while stop_at is not None and generator.tally.sent < stop_at:
                    await asyncio.sleep(0)
                if stop_at is not None:
                    generator.stop_sending()
                return await running
            finally:
                await generator.close()

    return asyncio.run(main())


def test_a_count_of_echoes() -> None:
    seen: list[Counts] = []
    report = load(echo, seen=seen)
    assert (report.sent, report.answered, report.violations) == (60, 60, [])
    assert report.latency.count == 60
    assert (report.reconnects, report.resets) == (0, 0)
    assert report.duration_s > 0
    assert seen[-1] == {"sent": 60, "answered": 60, "errors": 0}


@pytest.mark.parametrize("size", [0, 1, 100_000])
def test_sizes(size: int) -> None:
    assert load(echo, size=size, count=12).violations == []


def test_a_duration() -> None:
    report = load(echo, count=None, duration_s=0.2)
    assert report.sent == report.answered > 0
    assert report.violations == []


def test_other_types_bring_the_front_back_in_middle() -> None:
    def answer(con: Connection, m: Message) -> None:
        con.send_message(m.reply(front=b"result", middle=m.front))

    assert load(answer, type=0x8002).violations == []
    assert load(echo, type=0x8002).violations == ["60 corrupted"]


def test_error_replies_are_answers() -> None:
    report = load(special(2, fail))
    assert (report.answered, report.errors, report.violations) == (60, {9: 3}, [])


def test_messages_of_other_types_are_none_of_ours() -> None:
    def push(con: Connection, m: Message) -> None:
        con.send_message(Message(0x9000, b"news"))
        echo(con, m)

    assert load(push).violations == []


def test_a_missing_reply_is_lost() -> None:
    report = load(special(20, lambda con, m: None))
    assert report.violations == ["3 lost"]
    assert report.answered == 57


def test_a_reply_too_many_is_a_duplicate() -> None:
    def twice(con: Connection, m: Message) -> None:
        echo(con, m)
        echo(con, m)

    assert load(special(2, twice)).violations == ["3 duplicated"]


def test_a_late_reply_is_reordered() -> None:
    held: dict[Connection, Message] = {}

    def swap(con: Connection, m: Message) -> None:
        if m.tid == 2:
            held[con] = m
            return
        echo(con, m)
        if m.tid == 3:
            echo(con, held.pop(con))

    assert load(swap).violations == ["3 reordered"]


def test_other_bytes_are_corruption() -> None:
    def cut(con: Connection, m: Message) -> None:
        con.send_message(m.reply(front=m.front, middle=m.middle, data=m.data[:-1]))

    assert load(special(2, cut)).violations == ["3 corrupted"]


def test_a_server_that_forgets_a_session() -> None:
    report = load(special(3, lambda con, m: con.mark_down()))
    assert (report.sent, report.resets, report.ended) == (60, 3, 0)
    assert report.lost > 0
    assert report.answered + report.lost == 60


def test_a_server_that_stops() -> None:
    stopping: list[asyncio.Task[int]] = []

    def stop(con: Connection, m: Message) -> None:
        assert isinstance(con, MessengerConnection)
        if not stopping:
            stopping.append(asyncio.get_running_loop().create_task(con.messenger.shutdown()))

    report = load(special(3, stop))
    assert report.ended == 3
    assert report.lost > 0
    assert report.sent == report.answered + report.lost < 60
    assert report.violations[-1] == "3 sessions ended too soon (the peer closed the session)"


def test_sending_stops_when_told() -> None:
    report = load(echo, count=None, duration_s=3600.0, stop_at=20)
    assert report.violations == []
    assert report.answered == report.sent >= 20


def test_nobody_there() -> None:
    async def main() -> None:
        generator = Generator(
            LoadPlan("127.0.0.1:1", count=1, connect_timeout_s=0.2), lambda counts: None
        )
        try:
            await generator.connect()
        finally:
            await generator.close()

    with pytest.raises(ConnectError):
        asyncio.run(main())
