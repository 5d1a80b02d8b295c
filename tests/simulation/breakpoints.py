"""Short histories of two hosts, each with a trap at one of its breakpoints, and what they count."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import NamedTuple

from mpmsgr.session.actions import EventKind
from mpmsgr.session.endpoint import Timing
from mpmsgr.session.policy import Policy
from mpmsgr.session.session import Session, Target
from tests.simulation.host import Books, Host
from tests.simulation.network import Clock
from tests.simulation.plan import SETUPS
from tests.simulation.traps import BLOCK_S, Act, Point, TrappedEnd, TrappedNetwork, points

PORT = 6800
#: When the connection changes its fate, and the end, in seconds.
LATER_S, END_S = 5.0, 80.0
#: When a sends again, long after: twice, for the trap may be there.
AGAIN_S = (45.0, 60.0)
_UNTRAPPED = {"keepalive2", "keepalive2_ack", "close"}


class Counts(NamedTuple):
    """What happened at one host."""

    dials: int
    connects: int
    accepts: int
    remote_resets: int
    resets: int
    lost: int
    delivered: int

    def __str__(self) -> str:
        return " ".join("." if count == 0 else str(count) for count in self)


class Outcome(NamedTuple):
    """What happened at both hosts."""

    a: Counts
    b: Counts

    def __str__(self) -> str:
        return f"{self.a} | {self.b}"


class Pair:
    """Hosts a and b of setup *setup*. a dials and sends, b answers each message; peers both send.

    a has the lower address.
    """

    def __init__(self, setup: str) -> None:
        policies = SETUPS[setup]
        self.clock, self.books = Clock(), Books()
        self.books.only_priority = 127
        self.network = TrappedNetwork(self.clock)
        self.a = self._host("a", 1, policies.dials, listens=policies.peers, echo=0.0)
        self.b = self._host("b", 2, policies.listens, listens=True, echo=1.0)
        self.resets: list[Session] = []

    def _host(self, label: str, number: int, policy: Policy, *, listens: bool, echo: float) -> Host:
        watched = replace(policy, keepalive_period_s=4.0, keepalive_timeout_s=10.0)
        ip, port = f"10.0.0.{number}", PORT if listens else 0
        return Host(
            self.network,
            self.books,
            label,
            ip,
            port,
            watched,
            Random(number),
            nonce=number,
            timing=Timing(jitter=False),
            echo=echo,
        )

    def at(self, seconds: float, act: Callable[..., None], *args: object) -> None:
        """Call *act* then."""
        self.clock.call_at(seconds, act, *args)

    def send(self, from_: Host, to: Host) -> None:
        """One message; connects if there is no session."""
        from_.send(from_.connect(Target(to.ip, PORT)), 1)

    def cut(self, *hosts: Host) -> None:
        """Break every connection, at *hosts*; the other side is not told."""
        for end in self.network.ends:
            assert isinstance(end, TrappedEnd)
            if end.host in hosts:
                end.peer.is_open = end.peer.is_open and end.peer.host in hosts
                end.break_off()

    def forget(self, host: Host) -> None:
        """Mark down all sessions of *host*."""
        for session in host.endpoint.registry:
            host.mark_down(session)

    def run(self) -> Outcome:
        """Let it happen."""
        while self.clock.next_at() <= END_S:
            self.clock.step()
        return Outcome(self._counts(self.a), self._counts(self.b))

    def _counts(self, host: Host) -> Counts:
        events = [kind for track in host.tracks.values() for kind in track.events]
        return Counts(
            sum(line.host == host.label and line.what == "dial" for line in self.books.story),
            events.count(EventKind.CONNECT),
            events.count(EventKind.ACCEPT),
            events.count(EventKind.REMOTE_RESET),
            events.count(EventKind.RESET),
            sum(len(track.lost) for track in host.tracks.values()),
            sum(len(track.delivered) for track in host.tracks.values()),
        )


Arm = Callable[[], None]
Script = Callable[[Pair, Arm], None]


def first(pair: Pair, arm: Arm) -> None:
    """a connects and sends"""
    arm()
    pair.send(pair.a, pair.b)


def reconnect(pair: Pair, arm: Arm) -> None:
    """both lose the idle connection, then a sends"""
    pair.send(pair.a, pair.b)
    pair.at(LATER_S, arm)
    pair.at(LATER_S, pair.cut, pair.a, pair.b)
    pair.at(LATER_S + 0.5, pair.send, pair.a, pair.b)


def half_open(pair: Pair, arm: Arm) -> None:
    """only a notices that the connection is lost, then a sends"""
    pair.send(pair.a, pair.b)
    pair.at(LATER_S, arm)
    pair.at(LATER_S, pair.cut, pair.a)
    pair.at(LATER_S + 0.5, pair.send, pair.a, pair.b)


def b_forgets(pair: Pair, arm: Arm) -> None:
    """b marks the idle session down, then a sends"""
    pair.send(pair.a, pair.b)
    pair.at(LATER_S, arm)
    pair.at(LATER_S, pair.forget, pair.b)
    pair.at(LATER_S + 2 * BLOCK_S, pair.send, pair.a, pair.b)


def a_forgets(pair: Pair, arm: Arm) -> None:
    """a marks the idle session down, then connects and sends"""
    pair.send(pair.a, pair.b)
    pair.at(LATER_S, arm)
    pair.at(LATER_S, pair.forget, pair.a)
    pair.at(LATER_S + 0.5, pair.send, pair.a, pair.b)


def late(pair: Pair, arm: Arm) -> None:
    """as if b had heard of later attempts of a, both lose the connection, then a sends"""

    def hear() -> None:
        for session in pair.b.endpoint.registry:
            session.peer_global_seq = 1000

    pair.send(pair.a, pair.b)
    pair.at(LATER_S, arm)
    pair.at(LATER_S, hear)
    pair.at(LATER_S, pair.cut, pair.a, pair.b)
    pair.at(LATER_S + 0.5, pair.send, pair.a, pair.b)


def race(pair: Pair, arm: Arm) -> None:
    """a and b connect and send at the same time"""
    pair.b.echo = 0.0
    arm()
    pair.send(pair.a, pair.b)
    pair.send(pair.b, pair.a)
    for seconds in AGAIN_S:
        pair.at(seconds, pair.send, pair.b, pair.a)


@dataclass(frozen=True)
class Section:
    """All breakpoints of the connections that *dialler* dials in *script*, from a moment on."""

    setup: str
    script: Script
    dialler: str = "a"

    @property
    def title(self) -> str:
        """In words."""
        whose = f", connections of {self.dialler}" if self.script is race else ""
        return f"{self.setup}: {self.script.__doc__}{whose}"

    def outcome(self, point: Point | None, act: Act = Act.FAULT) -> tuple[Outcome, Pair]:
        """Run it with a trap at *point*."""
        pair = Pair(self.setup)
        self.script(pair, lambda: pair.network.arm(self.dialler, point, act))
        for seconds in AGAIN_S:
            pair.at(seconds, pair.send, pair.a, pair.b)
        outcome = pair.run()
        return outcome, pair

    def points(self) -> list[Point]:
        """Its breakpoints, step by step as they come when nothing is in the way."""
        _, pair = self.outcome(None)
        steps = dict.fromkeys(step for step in pair.network.steps if step[1] not in _UNTRAPPED)
        other = {"a": "b", "b": "a"}
        return [point for who, step in steps for point in points(who, other[who], step)]


SECTIONS = (
    Section("client-server", first),
    Section("client-server", reconnect),
    Section("client-server", half_open),
    Section("client-server", b_forgets),
    Section("client-server", a_forgets),
    Section("client-server", late),
    Section("peer-server", first),
    Section("peer-server", reconnect),
    Section("peer-server", b_forgets),
    Section("peers", first),
    Section("peers", reconnect),
    Section("peers", half_open),
    Section("peers", race),
    Section("peers", race, dialler="b"),
    Section("reusing-peers", first),
    Section("reusing-peers", reconnect),
    Section("reusing-peers", a_forgets),
    Section("reusing-peers", race),
    Section("reusing-peers", race, dialler="b"),
    Section("lossy", first),
    Section("lossy", half_open),
    Section("lossy-registered", first),
    Section("lossy-registered", half_open),
    Section("server-decides", first),
)
