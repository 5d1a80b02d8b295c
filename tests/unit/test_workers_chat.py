"""The chat in one process: rooms, names, refusals, roll calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from mpmsgr import ErrorCode, Messenger, RemoteError
from mpmsgr.dispatch.handlers import FunctionDispatcher
from mpmsgr.messenger.connection import MessengerConnection
from mpmsgr.messenger.local_group import LocalService
from tests.unit.messenger_peers import client, connected, place, serving
from workers import chat
from workers.chat import Here, Join, Leave, Line, RollCall, Say, Summary, Who

TEST_S = 10.0


@asynccontextmanager
async def guests(count: int) -> AsyncIterator[tuple[Messenger, list[MessengerConnection]]]:
    """A chat, and so many connections to it, of a client each."""
    async with asyncio.timeout(TEST_S), AsyncExitStack() as stack:
        server = await stack.enter_async_context(serving(FunctionDispatcher(chat, {})))
        messengers = [await stack.enter_async_context(client()) for _ in range(count)]
        yield server, [await connected(messenger, place(server)) for messenger in messengers]


def test_what_is_said_is_heard_in_its_room_and_nowhere_else() -> None:
    async def main() -> None:
        async with guests(3) as (_, (ann, bob, eve)):
            lines = [con.messages(Line) for con in (ann, bob, eve)]
            assert await ann.request(Join("tea", "Ann")) == ["Ann"]
            assert await bob.request(Join("tea", "Bob")) == ["Ann", "Bob"]
            assert await eve.request(Join("bar", "Eve")) == ["Eve"]
            assert await ann.request(Say("tea", "more milk?")) == 1
            assert await eve.request(Say("bar", "cheers")) == 1
            assert await bob.request(Say("tea", "please")) == 2
            milk, please = Line("tea", 1, "Ann", "more milk?"), Line("tea", 2, "Bob", "please")
            for stream in lines[:2]:
                assert [await anext(stream), await anext(stream)] == [milk, please]
            assert await anext(lines[2]) == Line("bar", 1, "Eve", "cheers")
            assert not any(stream._queue for stream in lines)

    asyncio.run(main())


def test_who_left_hears_no_more_and_who_never_joined_is_not_heard() -> None:
    async def main() -> None:
        async with guests(2) as (_, (ann, bob)):
            lines = bob.messages(Line)
            await ann.request(Join("tea", "Ann"))
            for text in ("before", "after"):
                if text == "after":
                    await bob.request(Join("tea", "Bob"))
                    assert await bob.request(Leave("tea")) == ["Ann"]
                with pytest.raises(RemoteError, match="join it first") as raised:
                    await bob.request(Say("tea", text))
                assert raised.value.code == ErrorCode.REJECTED
            assert await ann.request(Say("tea", "alone")) == 1
            assert await bob.request(Who("tea")) == ["Ann"]
            assert not lines._queue

    asyncio.run(main())


def test_who_does_not_answer_roll_calls_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "_roll_call", lambda: 100)

    async def main() -> None:
        async with guests(2) as (_, (ann, bob)):
            summaries = ann.messages(Summary)
            await ann.request(Join("tea", "Ann"))
            await bob.request(Join("tea", "Bob"))
            await ann.request(Say("tea", "anybody there?"))
            for number in (101, 102, 103):
                ann.send_message(Here("tea", number))
                ann.send_message(Here("tea", number))  # sums up nothing more
            seen = [await anext(summaries) for _ in range(3)]
            both = ["Ann", "Bob"]
            assert [summary.names for summary in seen] == [both, both, ["Ann"]]
            assert {(summary.room, summary.lines) for summary in seen} == {("tea", 1)}
            bob.send_message(Here("tea", 104))
            assert await bob.request(Who("tea")) == ["Ann"]
            assert not summaries._queue

    asyncio.run(main())


def test_the_roll_is_called_for_those_in_any_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "_roll_call", lambda: 100)
    (task,) = FunctionDispatcher(chat, {}).every()
    assert task.seconds == chat.ROLL_CALL_S

    async def main() -> None:
        async with guests(3) as (server, (ann, bob, eve)):
            calls = [con.messages(RollCall) for con in (ann, bob, eve)]
            await ann.request(Join("tea", "Ann"))
            await bob.request(Join("bar", "Bob"))
            await eve.request(Who("tea"))
            task.function(LocalService(server))
            assert [await anext(stream) for stream in calls[:2]] == [RollCall(100)] * 2
            await eve.request(Who("tea"))
            assert not calls[2]._queue

    asyncio.run(main())
