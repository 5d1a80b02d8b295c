"""Connections that advance step by step, with one trap at one point of one of them."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from enum import Enum
from random import Random
from typing import NamedTuple

from mpmsgr.session.pipe import Pipe
from mpmsgr.wire.v1.handshake import CONNECT_SIZE, REPLY_SIZE
from mpmsgr.wire.v1.tags import Tag
from tests.simulation.network import CALM, Clock, End, Network, Socketed

#: From one end to the other, in seconds.
LATENCY_S = 0.001
#: How long a block lasts, in seconds: shorter than anybody's patience.
BLOCK_S = 2.0

_ADDR_SIZE = 136
_CONNECT_AUTH_LEN_AT, _REPLY_AUTH_LEN_AT = 28, 21
_HEADER_AND_FOOTER = 1 + 53 + 21
_LENGTHS = struct.Struct("<III")
_U32 = struct.Struct("<I")


class Act(Enum):
    """What a trap does to the side that runs into it."""

    FAULT = "fault"  # its socket breaks
    BLOCK = "block"  # it stands still for a while
    STALL = "stall"  # it stands still for good; the socket stays open


class Point(NamedTuple):
    """A point of a connection: side *who*, before or after it writes or reads *step*."""

    who: str
    verb: str
    step: str
    when: str

    def __str__(self) -> str:
        return f"{self.when} {self.who} {self.verb} {self.step}"


def points(who: str, peer: str, step: str) -> list[Point]:
    """The four points of a step that *who* writes."""
    sides = ((who, "writes"), (peer, "reads"))
    return [Point(*side, step, when) for side in sides for when in ("before", "after")]


class Steps:
    """Cuts what both sides of one connection write into named steps."""

    def __init__(self) -> None:
        self._connects = 0
        self._answer = 0  # the last tag of a reply
        self._client, self._server = self._client_steps(), self._server_steps()

    def cut(self, data: bytes, *, client: bool) -> Iterator[tuple[str, bytes]]:
        """The steps in *data*, written at once by the client or by the server."""
        while data:
            name, size = self._next(data, client)
            yield name, data[:size]
            data = data[size:]

    def _next(self, data: bytes, client: bool) -> tuple[str, int]:
        step = next(self._client if client else self._server)
        if step == "connect":
            self._connects += 1
            times = f" {self._connects}" if self._connects > 1 else ""
            return step + times, CONNECT_SIZE + _u32(data, _CONNECT_AUTH_LEN_AT)
        if step == "reply":
            self._answer = data[0]
            return Tag(data[0]).name, REPLY_SIZE + _u32(data, _REPLY_AUTH_LEN_AT)
        if step == "frame":
            return _frame(data)
        return step, {"banner": 9, "seq": 8}.get(step, _ADDR_SIZE)

    def _client_steps(self) -> Iterator[str]:
        yield from ("banner", "address", "connect")
        while self._answer not in (Tag.READY, Tag.SEQ):
            yield "connect"
        if self._answer == Tag.SEQ:
            yield "seq"
        while True:
            yield "frame"

    def _server_steps(self) -> Iterator[str]:
        yield from ("banner", "address", "peer address")
        while self._answer not in (Tag.READY, Tag.SEQ):
            yield "reply"
        if self._answer == Tag.SEQ:
            yield "seq"
        while True:
            yield "frame"


def _u32(data: bytes, at: int) -> int:
    return int(_U32.unpack_from(data, at)[0])


def _frame(data: bytes) -> tuple[str, int]:
    tag = Tag(data[0])
    if tag is Tag.MSG:
        return "message", _HEADER_AND_FOOTER + sum(_LENGTHS.unpack_from(data, 1 + 22))
    return tag.name.lower(), 1 if tag in (Tag.CLOSE, Tag.KEEPALIVE) else 9


class TrappedNetwork(Network):
    """A calm network whose connections pass on one step at a time.

    armed, act: the trap, which springs once, on connections that host *dialler* dials from then
    on; steps: who wrote what on those, in order.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock, Random(0), CALM)
        self.armed: Point | None = None
        self.act = Act.FAULT
        self.steps: list[tuple[str, str]] = []
        self._watched = ""
        self._talk: Talk | None = None

    def arm(self, dialler: str, point: Point | None, act: Act) -> None:
        """Set the trap; with no *point* only take down the steps."""
        self._watched, self.armed, self.act = dialler, point, act

    def new_end(self, host: Socketed, pipe: Pipe | None) -> End:
        """See `Network`."""
        if pipe is not None:
            self._talk = Talk(self, watched=host.label == self._watched)
        assert self._talk is not None
        return TrappedEnd(self, host, pipe, self._talk)


class Talk:
    """What the two ends of a connection share."""

    def __init__(self, network: TrappedNetwork, *, watched: bool) -> None:
        self.network, self.watched = network, watched
        self.steps = Steps()

    def wrote(self, who: str, step: str) -> None:
        """Take down a step."""
        if self.watched:
            self.network.steps.append((who, step))

    def springs(self, point: Point) -> bool:
        """Is the trap there?"""
        if not self.watched or point != self.network.armed:
            return False
        self.network.armed = None
        return True


class TrappedEnd(End):
    """An end whose host may run into the trap, writing or reading."""

    def __init__(
        self, network: TrappedNetwork, host: Socketed, pipe: Pipe | None, talk: Talk
    ) -> None:
        super().__init__(network, host, pipe)
        self.talk = talk
        self._client = pipe is not None
        self._to_write: deque[tuple[str, bytes]] = deque()
        self._to_read: deque[tuple[str, bytes]] = deque()
        self._held: set[str] = set()

    def write(self, data: bytes) -> None:
        """See `End`."""
        if self.is_open and self.peer.is_open:
            self._to_write += self.talk.steps.cut(data, client=self._client)
            self._write_on()

    def await_arrival(self) -> None:
        """See `End`."""
        if not self._due and self.is_open and self.pipe is not None:
            self._due = True
            self.network.clock.call_at(self.network.clock.now + LATENCY_S, self._arrive)

    def _write_on(self) -> None:
        while self._to_write and self._may("writes", "before", self._to_write[0][0]):
            step, data = self._to_write.popleft()
            self.talk.wrote(self.host.label, step)
            if isinstance(self.peer, TrappedEnd):
                self.peer._to_read.append((step, data))
                self.peer.await_arrival()
            if not self._may("writes", "after", step):
                break

    def _arrive(self) -> None:
        self._due = False
        while self._to_read and self._may("reads", "before", self._to_read[0][0]):
            step, data = self._to_read.popleft()
            self.host.received(self, data)
            if not self._may("reads", "after", step):
                return
        if self._eof and not self._to_read and "reads" not in self._held:
            self.lose("end of file")

    def _may(self, verb: str, when: str, step: str) -> bool:
        """May the host go on? Springs the trap."""
        if not self.is_open or not self.host.alive or verb in self._held:
            return False
        if self.talk.springs(Point(self.host.label, verb, step, when)):
            self._spring(verb)
        return self.is_open and verb not in self._held

    def _spring(self, verb: str) -> None:
        act = self.talk.network.act
        if act is Act.FAULT:
            self.break_off()
            return
        self._held.add(verb)
        if act is Act.BLOCK:
            self.network.clock.call_at(self.network.clock.now + BLOCK_S, self._go_on, verb)

    def _go_on(self, verb: str) -> None:
        self._held.discard(verb)
        if verb == "writes":
            self._write_on()
        else:
            self._arrive()

    def break_off(self) -> None:
        """The socket of this end breaks; what it wrote still reaches the other one."""
        if self.is_open:
            self.close()
            if self.pipe is not None:
                self.host.lost(self.pipe, "the socket broke")
