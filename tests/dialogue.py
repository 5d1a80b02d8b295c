"""One endpoint spoken to byte by byte: what it hears, what it answers, and a clock to turn.

talk = Dialogue(STATEFUL_SERVER)
line = talk.accept()
line.says(BANNER, CLIENT.encode(), connect())
assert line.replies() == [ready()]
"""

from __future__ import annotations

from random import Random
from typing import Any

from mpmsgr.session.actions import (
    Answered,
    Arrived,
    Close,
    Deliver,
    Dial,
    Event,
    EventKind,
    Fault,
    Flush,
    FlushSoon,
    Full,
    Place,
    Report,
    StayPaused,
    Wake,
    Write,
)
from mpmsgr.session.endpoint import Endpoint, Timing
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.policy import Policies, Policy
from mpmsgr.session.session import Session, Target
from mpmsgr.session.states import State
from mpmsgr.wire.address import EntityAddr
from mpmsgr.wire.features import SUPPORTED
from mpmsgr.wire.limits import Limits
from mpmsgr.wire.message import Message
from mpmsgr.wire.name import EntityName, EntityType
from mpmsgr.wire.v1.handshake import (
    BANNER,
    Connect,
    HandshakeBuffer,
    Reply,
    encode_seq,
    encode_server_hello,
)
from mpmsgr.wire.v1.parcel import encode_parcel, raw_ids
from mpmsgr.wire.v1.parser import Frame, FrameParser
from mpmsgr.wire.v1.tags import Tag
from tests.streams import message_frame

#: The endpoint under test, the peer it talks to, and the peer's end of an accepted socket.
OWN = EntityAddr.of("10.0.0.1", 6800, 77)
PEER = EntityAddr.of("10.0.0.2", 6801, 88)
CLIENT = EntityAddr.of("10.0.0.2", 0, 88)
SOCKET = EntityAddr.of("10.0.0.2", 40000)
TARGET = Target("10.0.0.2", 6801)
START = 1000.0
ACK_DELAY_S = 0.04


def connect(connect_seq: int = 0, global_seq: int = 1, **fields: Any) -> Connect:
    """What the peer proposes."""
    values = {"features": SUPPORTED, "host_type": int(EntityType.CLIENT), "protocol_version": 0}
    return Connect(**{**values, "connect_seq": connect_seq, "global_seq": global_seq, **fields})


def reply(tag: Tag, connect_seq: int = 0, global_seq: int = 0, **fields: Any) -> Reply:
    """What a server answers."""
    return Reply(tag, **{"features": SUPPORTED, **fields, "connect_seq": connect_seq,
                         "global_seq": global_seq})  # fmt: skip


def message(seq: int, tid: int = 0, **fields: Any) -> bytes:
    """The frame of a message from the peer."""
    return message_frame(Message(0x8001, b"front", tid=tid or seq, **fields), seq)


def state_of(session: Session) -> State:
    """The state at this moment: a type checker believes that an attribute keeps its value."""
    return session.state


class Line:
    """A socket of the endpoint, seen from its other end."""

    def __init__(self, talk: Dialogue, pipe: Pipe) -> None:
        self.talk, self.pipe = talk, pipe
        self.written = b""
        self.closed = False
        self.in_seq: int | None = None
        self._parser: FrameParser | None = None

    def says(self, *parts: bytes | Connect | Reply) -> None:
        """The peer sends *parts*, in one piece."""
        data = b"".join(part if isinstance(part, bytes) else part.encode() for part in parts)
        self.pipe.receive(data, self.talk.now)
        self.talk.execute()

    def breaks(self, cause: str = "cut") -> None:
        """The socket is gone."""
        self.talk.endpoint.lost(self.pipe, cause, self.talk.now)
        self.talk.execute()

    def heard(self) -> bytes:
        """What was written since the last time; queued output is flushed first."""
        self.talk.flush()
        written, self.written = self.written, b""
        return written

    def replies(self) -> list[Reply]:
        """The connect replies heard, and `in_seq` behind a SEQ; frames are left for `frames`."""
        buf = HandshakeBuffer(Limits())
        buf.feed(self.heard())
        replies = []
        while (one := buf.read_reply()) is not None:
            replies.append(one)
            if one.tag == Tag.SEQ:
                self.in_seq = buf.read_seq()
            if one.tag in (Tag.READY, Tag.SEQ):
                break
        self.written = buf.take_rest()
        return replies

    def connects(self) -> list[Connect]:
        """The connects heard."""
        buf = HandshakeBuffer(Limits())
        buf.feed(self.heard())
        connects = []
        while (one := buf.read_connect()) is not None:
            connects.append(one)
        assert buf.take_rest() == b""
        return connects

    def frames(self) -> list[Frame]:
        """The frames heard."""
        if self._parser is None:
            session = self.pipe.session
            assert session is not None
            self._parser = FrameParser(Limits(), session.features)
        return self._parser.feed(self.heard())

    def tags(self) -> list[str]:
        """The tags of the frames heard; messages as ``MSG 1``, acks as ``ACK 1``."""
        return [
            f"{Tag(tag).name} {value}" if isinstance(value, int) else Tag(tag).name
            for tag, value, _ in self.frames()
        ]


class Dialogue:
    """An endpoint with one policy for everybody, at OWN, driven as `Driver` does.

    port: 0 = it only connects, from an unknown ip.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        port: int = OWN.port,
        timing: Timing | None = None,
        rng: Random | None = None,
        **options: Any,
    ) -> None:
        addr = OWN if port else EntityAddr(nonce=OWN.nonce)
        kind = EntityType.SERVICE if port else EntityType.CLIENT
        self.endpoint = Endpoint(
            EntityName(kind, 0),
            addr,
            Policies(policy),
            rng or Random(1),
            timing=timing or Timing(jitter=False),
            **options,
        )
        self.now = START
        self.lines: dict[Pipe, Line] = {}
        self.dials: list[Dial] = []
        self.dial_times: list[float] = []
        self.events: list[Event] = []
        self.delivered: list[int] = []
        self.faults: list[Fault] = []
        self.answered: list[Session] = []
        self.reports: list[Report] = []
        self.places: list[Place] = []
        self.arrived: list[Pipe] = []
        self.still_paused: list[Session] = []
        self.fulls: list[bool] = []
        self._wakes: list[Wake] = []
        self._dirty: dict[Pipe, None] = {}
        self._soon: dict[Pipe, float] = {}

    # sockets

    def accept(self, socket: EntityAddr = SOCKET, own: EntityAddr = OWN) -> Line:
        """The peer connects; what it hears first is the server's hello."""
        pipe = self.endpoint.accept(socket, own, self.now)
        line = self.lines[pipe] = Line(self, pipe)
        self.execute()
        return line

    def dialled(self, peer: EntityAddr = PEER) -> Line:
        """The last dial gets through, to *peer*."""
        pipe = self.dials[-1].pipe
        line = self.lines[pipe] = Line(self, pipe)
        self.endpoint.dialled(pipe, peer, self.now)
        self.execute()
        return line

    def refused(self) -> None:
        """The last dial does not get through."""
        self.endpoint.lost(self.dials[-1].pipe, "refused", self.now, refused=True)
        self.execute()

    def connect(self, target: Target = TARGET, **options: Any) -> Session:
        """The application asks for a session with the peer."""
        session = self.endpoint.connect(target, EntityType.SERVICE, self.now, **options)
        self.execute()
        return session

    def send(self, session: Session, *tids: int, **fields: Any) -> bool:
        """The application sends messages with these tids."""
        messages = [Message(0x8001, b"front", tid=tid, **fields) for tid in tids]
        parcels = [encode_parcel(m, self.endpoint.name) for m in messages]
        sent = self.endpoint.send(session, parcels, self.now)
        self.execute()
        return sent

    # whole handshakes

    def open_incoming(
        self,
        connect_seq: int = 0,
        global_seq: int = 1,
        *,
        addr: EntityAddr = CLIENT,
        in_seq: int = 0,
        **fields: Any,
    ) -> Line:
        """The peer opens or takes over a session; *in_seq*: its answer in a SEQ exchange."""
        line = self.accept()
        line.heard()
        line.says(BANNER, addr.encode(), connect(connect_seq, global_seq, **fields))
        (answer,) = line.replies()
        assert answer.tag in (Tag.READY, Tag.SEQ), answer
        if answer.tag == Tag.SEQ:
            line.says(encode_seq(in_seq))
        return line

    def open_outgoing(self, answer: Reply | None = None, *, in_seq: int = 0) -> Line:
        """The last dial gets through and the peer says READY, or *answer*."""
        line = self.dialled()
        line.says(encode_server_hello(PEER, SOCKET))
        (proposal,) = self.proposals(line)
        line.says(answer or reply(Tag.READY, proposal.connect_seq + 1, 1))
        if answer is not None and answer.tag == Tag.SEQ:
            line.says(encode_seq(in_seq))
            line.heard()
        return line

    def proposals(self, line: Line) -> list[Connect]:
        """The connects behind the client's hello, which must be right."""
        hello = line.heard()
        own = self.endpoint.addr.encode()
        assert hello.startswith(BANNER + own)
        line.written = hello[len(BANNER + own) :]
        return line.connects()

    @property
    def session(self) -> Session:
        """The only session there is."""
        (session,) = self.endpoint.registry
        return session

    # time

    def until(self, at: float) -> None:
        """Turn the clock to *at*; whoever asked to be woken is, and what is due is written."""
        self.flush()
        while (due := self._next_at()) <= at:
            self.now = max(self.now, due)
            for wake in [wake for wake in self._wakes if wake.at <= self.now]:
                self._wakes.remove(wake)
                if wake.target.wake_at == wake.at:
                    self.endpoint.wake(wake.target, self.now)
                    self.execute()
            self._flush_soon()
            self.flush()
        self.now = at

    def turn(self, seconds: float) -> None:
        """Turn the clock on."""
        self.until(self.now + seconds)

    def until_dial(self) -> None:
        """Turn the clock to the next dial, if it has not come already."""
        dials = len(self.dials)
        while len(self.dials) == dials:
            self.until(min(wake.at for wake in self._wakes if wake.target.wake_at == wake.at))

    def _next_at(self) -> float:
        times = [*self._soon.values(), *(wake.at for wake in self._wakes)]
        return min(times, default=float("inf"))

    # executing

    def execute(self) -> None:
        """Take the actions and note them; output waits for `flush`, an ack for its delay."""
        while actions := self.endpoint.take():
            for action in actions:
                self._execute(action)

    def _execute(self, action: Any) -> None:
        match action:
            case Write(pipe, data):
                if pipe in self._dirty:
                    self._output(pipe)
                self._line(pipe).written += data
            case Close(pipe):
                self._line(pipe).closed = True
                self._dirty.pop(pipe, None)
            case Dial():
                self.dials.append(action)
                self.dial_times.append(self.now)
            case Flush(pipe):
                self._dirty[pipe] = None
            case FlushSoon(pipe):
                self._soon.setdefault(pipe, self.now + ACK_DELAY_S)
            case Wake():
                self._wakes.append(action)
            case Deliver(_, raws):
                self.delivered += [raw_ids(raw)[1] for raw in raws]
            case Place():
                self.places.append(action)
            case Arrived(pipe):
                self.arrived.append(pipe)
            case StayPaused(session):
                self.still_paused.append(session)
            case Event():
                self.events.append(action)
            case Answered(session):
                self.answered.append(session)
            case Full(_, full):
                self.fulls.append(full)
            case Report():
                self.reports.append(action)
            case Fault():
                self.faults.append(action)
            case _:
                raise AssertionError(action)

    def _line(self, pipe: Pipe) -> Line:
        if pipe not in self.lines:
            self.lines[pipe] = Line(self, pipe)
        return self.lines[pipe]

    def flush(self) -> None:
        """Write what is due; not an ack that may wait."""
        while self._dirty:
            pipe = next(iter(self._dirty))
            del self._dirty[pipe]
            self._output(pipe)

    def _output(self, pipe: Pipe) -> None:
        self._line(pipe).written += b"".join(pipe.output(self.now))
        if pipe.has_more:
            self._dirty[pipe] = None
        self.execute()

    def _flush_soon(self) -> None:
        for pipe, at in list(self._soon.items()):
            if at <= self.now:
                del self._soon[pipe]
                if pipe.established is not None and pipe.established.flush_soon:
                    self._dirty[pipe] = None

    # what the application was told

    def told(self) -> list[EventKind]:
        """The kinds of the events since the last time."""
        kinds = [event.kind for event in self.events]
        self.events.clear()
        return kinds


def asks(
    talk: Dialogue, connect_seq: int = 0, global_seq: int = 2, addr: EntityAddr = CLIENT
) -> Line:
    """Who lives at *addr* connects."""
    line = talk.accept()
    line.heard()
    line.says(BANNER, addr.encode(), connect(connect_seq, global_seq))
    return line
