"""Which sessions are read, what they wait for, and who goes on when something is given back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from mpmsgr.messenger.throttles import RESERVE, Throttles, too_slow
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.policy import (
    LOSSLESS_PEER,
    LOSSY_CLIENT,
    STATEFUL_SERVER,
    Policies,
    Policy,
)
from mpmsgr.session.session import Pause, Session
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.name import EntityType

CLIENT, OSD, MGR = int(EntityType.CLIENT), int(EntityType.OSD), int(EntityType.MGR)
MIB = 1 << 20


class FakeDriver:
    """Notes who is read; *now* is what a test says."""

    def __init__(self, policies: Policies) -> None:
        self.endpoint = SimpleNamespace(policies=policies, pipe_failed=self._failed)
        self.time = 100.0
        self.brief = False
        self.granted: list[Pipe] = []
        self.failed: list[tuple[Pipe, str]] = []

    def now(self) -> float:
        return self.time

    def pause_reading(self, session: Session, reason: Pause) -> None:
        session.paused |= reason

    def resume_reading(self, session: Session, reason: Pause) -> None:
        session.paused &= ~reason

    def read_briefly(self, brief: bool) -> None:
        self.brief = brief

    def grant(self, pipe: Pipe, place: memoryview) -> bool:
        self.granted.append(pipe)
        return True

    def run(self) -> None:
        pass

    def _failed(self, pipe: Pipe, cause: str, now: float) -> None:
        self.failed.append((pipe, cause))


class Desk:
    """Throttles as a sink uses them. nbytes: of each session's messages in work."""

    def __init__(
        self, dispatch_bytes: int, default: Policy = STATEFUL_SERVER, **by_type: Policy
    ) -> None:
        types = {"client": CLIENT, "osd": OSD, "mgr": MGR}
        self.policies = Policies(default, {types[name]: p for name, p in by_type.items()})
        self.driver = FakeDriver(self.policies)
        self.full_arena = False
        self.throttles = Throttles(dispatch_bytes, self._place)
        self.throttles.attach(self.driver)  # type: ignore[arg-type]
        self._ids = iter(range(1, 10_000))

    def _place(self, pipe: Pipe, size: int, lead: int) -> memoryview | None:
        return None if self.full_arena else memoryview(bytearray(1))

    def session(self, type_: int = CLIENT) -> Session:
        policy = self.policies.of(type_)
        return Session(next(self._ids), type_, EntityAddr(), policy)

    def pipe(self, session: Session | None = None) -> Pipe:
        """A socket; its session is a new one, or *session*."""
        pipe = Pipe(None, next(self._ids), incoming=True)  # type: ignore[arg-type]
        pipe.session = session or self.session()
        pipe.session.pipe = pipe
        return pipe

    def comes(self, session: Session, nbytes: int, messages: int = 1) -> None:
        """Messages arrive."""
        self.throttles.dispatch.current += nbytes
        self.throttles.took(session, messages, nbytes)
        if self.throttles.dispatch.current > self.throttles.quick:
            self.throttles.came(session)

    def done(self, session: Session, nbytes: int, messages: int = 1) -> None:
        """They are handled."""
        self.throttles.dispatch.current -= nbytes
        self.throttles.gave_back(session, messages, nbytes)
        if self.throttles.waits:
            self.throttles.look()

    def arrives(self, pipe: Pipe, nbytes: int) -> None:
        """What *pipe* had claimed is whole."""
        assert pipe.session is not None
        self.throttles.unclaim(pipe)
        self.comes(pipe.session, nbytes)

    @property
    def now(self) -> dict[str, int]:
        """What is counted, by throttle."""
        return {one["name"]: one["current"] for one in self.throttles.statistics()}

    @property
    def waiting(self) -> dict[str, int]:
        """Who waits, by throttle."""
        return {one["name"]: one["waiting"] for one in self.throttles.statistics()}


def in_loop(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """The test in a loop, for timers."""

    def run() -> None:
        asyncio.run(test())

    return run


# sessions


@in_loop
async def test_a_session_is_read_until_more_than_the_maximum_is_held() -> None:
    desk = Desk(1000)
    session = desk.session()
    desk.comes(session, 1000)
    assert not session.paused
    desk.comes(session, 1)
    assert session.paused == Pause.DISPATCH
    assert desk.driver.brief
    desk.done(session, 500)
    assert session.paused
    desk.done(session, 1)
    assert (session.paused, desk.driver.brief) == (Pause(0), False)


@in_loop
async def test_another_maximum_while_somebody_waits() -> None:
    desk = Desk(1000, mgr=replace(STATEFUL_SERVER, urgent=True))
    session, mgr = desk.session(), desk.session(MGR)
    desk.comes(session, 900)
    assert session.paused == Pause.DISPATCH
    desk.throttles.set_dispatch_bytes(8000)
    assert (session.paused, desk.driver.brief) == (Pause(0), False)
    assert desk.now == {"dispatch": 900}, "the room that was waited for is nobody's"
    desk.comes(session, 6101)
    assert session.paused, "an eighth is left to urgent peers"
    desk.comes(mgr, 999)
    assert not mgr.paused
    desk.throttles.set_dispatch_bytes(100)
    desk.done(mgr, 999)
    desk.done(session, 6901)
    assert session.paused
    desk.done(session, 100)
    assert (session.paused, desk.now) == (Pause(0), {"dispatch": 0})


@in_loop
async def test_it_goes_on_when_there_is_room_worth_a_read() -> None:
    desk = Desk(100 * MIB)
    session = desk.session()
    desk.comes(session, 100 * MIB + 1)
    desk.done(session, MIB)
    assert session.paused
    desk.done(session, 1)
    assert not session.paused


@in_loop
async def test_all_that_wait_go_on_together() -> None:
    desk = Desk(1000)
    sessions = [desk.session() for _ in range(5)]
    for session in sessions:
        desk.comes(session, 300)
    assert [bool(s.paused) for s in sessions] == [False, False, False, True, True]
    desk.done(sessions[0], 1001)
    assert not any(s.paused for s in sessions)
    assert desk.waiting == {"dispatch": 0}


@in_loop
async def test_nobody_is_read_past_one_who_waits() -> None:
    desk = Desk(1000)
    first, second = desk.session(), desk.session()
    desk.comes(first, 1100)
    desk.done(first, 200)  # not enough for it to go on
    desk.comes(second, 1)
    assert (first.paused, second.paused) == (Pause.DISPATCH, Pause.DISPATCH)


@in_loop
async def test_a_session_that_is_over_or_full_waits_no_longer() -> None:
    desk = Desk(1000)
    session, other = desk.session(), desk.session()
    desk.comes(session, 1001)
    desk.comes(other, 1)
    desk.throttles.let_through(session)
    assert (session.paused, other.paused) == (Pause(0), Pause.DISPATCH)
    assert desk.waiting == {"dispatch": 1}
    desk.throttles.let_through(session)


@in_loop
async def test_a_session_that_comes_again_over_another_socket_waits_on() -> None:
    desk = Desk(1000)
    session = desk.session()
    desk.comes(session, 1001)
    session.paused = Pause(0)
    desk.comes(session, 1)
    assert session.paused == Pause.DISPATCH
    assert desk.waiting == {"dispatch": 1}


# peer types


@in_loop
async def test_a_peer_type_has_its_own_maximum_for_all_its_sessions() -> None:
    desk = Desk(MIB, client=replace(STATEFUL_SERVER, throttle_messages=3))
    one, two, osd = desk.session(), desk.session(), desk.session(OSD)
    desk.comes(one, 10, messages=2)
    desk.comes(two, 10, messages=2)
    desk.comes(osd, 10, messages=100)
    assert [bool(s.paused) for s in (one, two, osd)] == [False, True, False]
    desk.comes(one, 10)
    assert one.paused
    assert desk.waiting == {"dispatch": 0, "client.messages": 2, "client.bytes": 0}
    desk.done(two, 10, messages=2)
    assert one.paused, "3 is not above the maximum, but no room is worth a read either"
    desk.done(one, 10)
    assert [bool(s.paused) for s in (one, two)] == [False, False]


@in_loop
async def test_types_without_a_policy_share_that_of_the_default_one() -> None:
    desk = Desk(MIB, replace(STATEFUL_SERVER, throttle_bytes=100), osd=STATEFUL_SERVER)
    client, mgr, osd = desk.session(), desk.session(MGR), desk.session(OSD)
    desk.comes(client, 60)
    desk.comes(osd, 5000)
    assert desk.now == {"dispatch": 5060, "default.messages": 0, "default.bytes": 60}
    desk.comes(mgr, 60)
    assert [bool(s.paused) for s in (client, mgr, osd)] == [False, True, False]


@in_loop
async def test_throttles_are_passed_in_order() -> None:
    policy = replace(STATEFUL_SERVER, throttle_messages=1, throttle_bytes=100)
    desk = Desk(1000, client=policy)
    session, other = desk.session(), desk.session(OSD)
    desk.comes(other, 1001)
    desk.comes(session, 101, messages=2)
    assert desk.waiting == {"dispatch": 1, "client.messages": 1, "client.bytes": 0}
    desk.done(session, 0, messages=1)
    assert desk.waiting == {"dispatch": 1, "client.messages": 0, "client.bytes": 1}
    desk.done(session, 51)
    assert desk.waiting == {"dispatch": 2, "client.messages": 0, "client.bytes": 0}
    assert session.paused
    desk.done(other, 1001)
    assert not session.paused


# messages that get their room first


@in_loop
async def test_a_claim_takes_its_room_before_anything_of_it_is_read() -> None:
    desk = Desk(1000)
    pipes = [desk.pipe() for _ in range(3)]
    assert [desk.throttles.claim(pipe, 500, 53) for pipe in pipes] == [True, True, False]
    assert (desk.now, desk.waiting) == ({"dispatch": 1000}, {"dispatch": 1})
    desk.arrives(pipes[0], 500)
    assert desk.now == {"dispatch": 1000}, "not counted twice"
    assert pipes[0].session is not None
    assert desk.waiting == {"dispatch": 2}, "its session is not read past the third"
    desk.done(pipes[0].session, 500)
    assert desk.driver.granted == [pipes[2]]
    assert (desk.now, desk.waiting) == ({"dispatch": 1000}, {"dispatch": 1})


@in_loop
async def test_one_that_is_longer_than_the_maximum_passes_alone() -> None:
    desk = Desk(1000)
    long, other = desk.pipe(), desk.pipe()
    assert desk.throttles.claim(long, 5000, 53)
    assert not desk.throttles.claim(other, 5000, 53)
    desk.throttles.unclaim(long)
    await asyncio.sleep(0)
    assert desk.driver.granted == [other]


@in_loop
async def test_a_claim_that_comes_to_nothing_gives_its_room_back() -> None:
    desk = Desk(1000, client=replace(STATEFUL_SERVER, throttle_messages=2, throttle_bytes=2000))
    pipes = [desk.pipe() for _ in range(3)]
    assert [desk.throttles.claim(pipe, 600, 53) for pipe in pipes] == [True, False, False]
    assert desk.waiting == {"dispatch": 1, "client.messages": 1, "client.bytes": 0}
    for pipe in pipes[1:]:  # their sockets are gone
        desk.throttles.unclaim(pipe)
    assert desk.now == {"dispatch": 600, "client.messages": 1, "client.bytes": 600}
    desk.throttles.unclaim(pipes[0])
    desk.throttles.unclaim(pipes[0])
    await asyncio.sleep(0)
    assert set(desk.now.values()) == set(desk.waiting.values()) == {0}
    assert desk.driver.granted == []
    assert not desk.throttles.waits


@in_loop
async def test_a_full_session_needs_no_room_for_what_it_claimed() -> None:
    desk = Desk(1000)
    assert desk.throttles.claim(desk.pipe(), 1000, 53)
    pipe = desk.pipe()
    assert not desk.throttles.claim(pipe, 500, 53)
    assert pipe.session is not None
    desk.throttles.let_through(pipe.session)
    assert desk.driver.granted == [pipe]
    assert (desk.now, desk.waiting) == ({"dispatch": 1000}, {"dispatch": 0})
    desk.throttles.unclaim(pipe)
    assert desk.now == {"dispatch": 1000}


@in_loop
async def test_a_message_that_is_being_received_is_received_to_its_end() -> None:
    """However much else comes of its session meanwhile: it would hold its room for ever."""
    desk = Desk(1000)
    pipe = desk.pipe()
    assert desk.throttles.claim(pipe, 900, 53)
    assert pipe.session is not None
    desk.comes(pipe.session, 500)
    assert not pipe.session.paused
    desk.arrives(pipe, 900)
    assert pipe.session.paused


@in_loop
async def test_what_has_its_room_may_still_wait_for_a_place() -> None:
    desk = Desk(1000)
    first, second = desk.pipe(), desk.pipe()
    desk.throttles.claim(first, 1000, 53)
    desk.throttles.claim(second, 10, 53)
    desk.full_arena = True
    desk.arrives(first, 1000)
    assert first.session is not None
    desk.done(first.session, 1000)
    assert desk.driver.granted == [], "the arena will"
    assert desk.now == {"dispatch": 10}


# urgent peers


@in_loop
async def test_the_reserve_is_for_urgent_peers() -> None:
    desk = Desk(1000 * RESERVE, mgr=replace(STATEFUL_SERVER, urgent=True))
    client, mgr = desk.session(), desk.session(MGR)
    ordinary = 1000 * (RESERVE - 1)
    desk.comes(client, ordinary + 1)
    assert client.paused
    desk.comes(mgr, 999)
    assert not mgr.paused
    assert desk.throttles.claim(desk.pipe(desk.session(MGR)), 0, 53)
    assert not desk.throttles.claim(desk.pipe(), 0, 53)
    desk.comes(mgr, 1)
    assert mgr.paused
    desk.done(client, 500 * RESERVE + 1)
    assert (bool(mgr.paused), bool(client.paused)) == (False, True)


@in_loop
async def test_without_urgent_peers_there_is_none() -> None:
    desk = Desk(1000)
    assert desk.throttles.dispatch.reserve == 0


# slow payloads


def receiving(pipe: Pipe, got: int) -> None:
    """So much of the message of *pipe* has come."""
    parser = SimpleNamespace(buffered=got)
    pipe.established = SimpleNamespace(parser=parser)  # type: ignore[assignment]


@in_loop
async def test_a_payload_that_does_not_come_loses_its_room_to_others() -> None:
    desk = Desk(1000)
    slow, dead, other = desk.pipe(), desk.pipe(), desk.pipe()
    for pipe in (slow, dead):
        assert desk.throttles.claim(pipe, 500, 53)
        receiving(pipe, 100)
    cut = desk.throttles._cut_slow
    desk.driver.time += 1000
    cut()
    assert desk.driver.failed == [], "nobody waited"
    assert not desk.throttles.claim(other, 500, 53)
    for second in range(7):
        desk.driver.time += 1
        receiving(slow, 100 + 66_000 * second)
        cut()
    assert [pipe for pipe, _ in desk.driver.failed][-1:] == [dead]
    assert "100 of" not in desk.driver.failed[0][1]
    assert "0 of 400 bytes" in desk.driver.failed[0][1]
    desk.throttles.close()


@in_loop
async def test_one_that_we_do_not_read_is_not_slow() -> None:
    desk = Desk(1000)
    pipe = desk.pipe()
    assert desk.throttles.claim(pipe, 1000, 53)
    assert pipe.session is not None
    pipe.session.paused = Pause.ARENA
    assert not desk.throttles.claim(desk.pipe(), 500, 53)
    for _ in range(100):
        desk.driver.time += 1
        desk.throttles._cut_slow()
    pipe.session.paused = Pause(0)
    desk.driver.time += 1
    desk.throttles._cut_slow()
    assert desk.driver.failed == []
    desk.throttles.close()


def test_what_is_too_slow() -> None:
    assert too_slow(0, MIB, 5.0) == ""
    assert too_slow(0, 0, 50.0) == ""
    assert "of 1048576 bytes" in too_slow(6 * 64 * 1024 - 1, MIB, 6.0)
    assert too_slow(6 * 64 * 1024, MIB, 6.0) == ""
    assert too_slow(MIB, MIB, 1000.0) == ""


# what people see


@in_loop
async def test_the_gauges() -> None:
    desk = Desk(1000, client=replace(STATEFUL_SERVER, throttle_bytes=100))
    desk.comes(desk.session(), 101)
    dispatch, messages, nbytes = desk.throttles.statistics()
    assert dispatch == {
        "name": "dispatch",
        "current": 101,
        "max": 1000,
        "waiting": 0,
        "full_count": 0,
    }
    assert messages["name"] == "client.messages"
    assert messages["max"] == 0
    assert nbytes["name"] == "client.bytes"
    assert (nbytes["current"], nbytes["waiting"], nbytes["full_count"]) == (101, 1, 1)


def test_a_full_throttle_is_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        desk = Desk(10_000, client=replace(STATEFUL_SERVER, throttle_messages=5))
        for _ in range(10):
            desk.comes(desk.session(), 10, messages=1)
        desk.comes(desk.session(OSD), 10_000)
        desk.driver.time += 11
        desk.comes(desk.session(), 10)

    asyncio.run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "client peers are not read: 6 messages in work, at most 5"
        " ([policy.client] throttle_messages); 1 wait",
        "osd peers are not read: 10100 bytes in work, at most 10000 (dispatch_bytes); 1 wait",
        "client peers are not read: 11 messages in work, at most 5"
        " ([policy.client] throttle_messages); 6 wait (4 lines like this held back)",
    ]


@pytest.mark.parametrize(
    ("policy", "warned"),
    [
        (replace(LOSSLESS_PEER, throttle_bytes=1000), True),
        (replace(LOSSLESS_PEER, throttle_messages=10), True),
        (LOSSLESS_PEER, False),
        (replace(STATEFUL_SERVER, throttle_bytes=1000), False),
        (replace(LOSSY_CLIENT, throttle_bytes=1000), False),
    ],
)
def test_peers_that_may_stop_each_other_are_warned_of(
    policy: Policy, warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        Desk(1000, osd=policy)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert ["[policy.osd]" in record.getMessage() for record in caplog.records] == [True] * warned
