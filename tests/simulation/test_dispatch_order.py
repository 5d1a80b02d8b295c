"""What dispatchers may count on (dispatch spec §5), in histories with fast dispatch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from mpmsgr import Dispatcher
from mpmsgr.messenger.fast import FastSink
from mpmsgr.messenger.sink import Sink
from mpmsgr.session.actions import Deliver, Event, EventKind, Write
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.session import Session
from mpmsgr.wire.crc import Bytes
from mpmsgr.wire.message import Message
from mpmsgr.wire.v1.parcel import raw_ids
from mpmsgr.wire.v1.tags import Tag
from tests.simulation import host as host_module
from tests.simulation.history import live
from tests.simulation.host import Host
from tests.simulation.plan import SETUPS, draw

SEEDS = 25
_OPENS = (EventKind.CONNECT.value, EventKind.ACCEPT.value)
_READY = (bytes([Tag.READY]), bytes([Tag.SEQ]))


class Peer:
    """The connection of a session, as far as this needs one; log: what happened, in order."""

    failed = False

    def __init__(self, session: Session) -> None:
        self.session = session
        self.log: list[tuple[str, int]] = []

    def awaits(self, m: Message) -> bool:
        return False


class Usual(Sink):
    """Where events go, and the messages that nobody claims."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge

    def deliver(self, session: Session, raws: list[Bytes]) -> None:
        log = self.judge.peer(session).log
        log.extend(("usual", raw_ids(raw)[1]) for raw in raws)

    def full(self, session: Session, full: bool) -> None:
        """Nothing waits for room here."""

    async def drain(self) -> None:
        """Nothing is in work here."""

    def event(self, event: Event) -> None:
        self.judge.peer(event.session).log.append((event.kind.value, 0))
        Host._event(self.judge.host, event)


class Judge(Dispatcher):
    """Takes messages with odd tids fast, and notes everything; *host* gets what it sees."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.peers: dict[Session, Peer] = {}
        self.opened: set[Pipe] = set()  # their READY is written
        clock = host.clock
        driver: Any = SimpleNamespace(endpoint=host.endpoint, now=lambda: clock.now)
        self.sink = FastSink(Usual(self), driver, self.peer, 0.0)  # type: ignore[arg-type]
        self.sink.use([self])

    def peer(self, session: Session) -> Peer:
        return self.peers.setdefault(session, Peer(session))

    def can_fast_dispatch(self, m: Message) -> bool:
        return m.tid % 2 == 1

    def handle_fast_connect(self, con: Any) -> None:
        con.log.append(("fast connect", 0))

    def handle_fast_accept(self, con: Any) -> None:
        con.log.append(("fast accept", 0))
        assert con.session.pipe not in self.opened, "the peer knows before us"

    def fast_preprocess(self, con: Any, m: Message) -> None:
        con.log.append(("sees", m.tid))
        assert m.raw is not None
        Host._deliver(self.host, Deliver(con.session, [m.raw]))

    def fast_dispatch(self, con: Any, m: Message) -> None:
        con.log.append(("fast", m.tid))


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch) -> dict[Host, Judge]:
    """One per host from now on, between it and what it executes."""
    judges: dict[Host, Judge] = {}

    def judge(host: Host) -> Judge:
        if host not in judges:
            judges[host] = Judge(host)
        return judges[host]

    def write(host: Host, action: Write) -> None:
        if action.pipe.incoming and action.data[:1] in _READY:
            judge(host).opened.add(action.pipe)
        Host._write(host, action)

    def deliver(host: Host, action: Deliver) -> None:
        judge(host).sink.deliver(action.session, action.raws)

    def event(host: Host, action: Event) -> None:
        judge(host).sink.event(action)

    for kind, execute in ((Write, write), (Deliver, deliver), (Event, event)):
        monkeypatch.setitem(host_module._EXECUTE, kind, execute)
    return judges


def check(log: Sequence[tuple[str, int]]) -> None:
    """Raise AssertionError if *log* of a session breaks an order that dispatchers count on."""
    is_open, before = False, ""
    for what, _ in log:
        if what in ("sees", "fast", "usual"):
            assert is_open, "a message of a session that nobody has announced"
        elif what in _OPENS:
            assert before == f"fast {what}", "the fast callback comes right before"
        elif what in (EventKind.REMOTE_RESET.value, EventKind.RESET.value):
            is_open = False
        is_open |= what.startswith("fast ")
        before = what
    ends = [i for i, (what, _) in enumerate(log) if what == EventKind.RESET.value]
    assert ends in ([], [len(log) - 1]), "a reset is the last word"
    seen = [tid for what, tid in log if what == "sees"]
    assert [tid for what, tid in log if what == "fast"] == [tid for tid in seen if tid % 2]
    assert [tid for what, tid in log if what == "usual"] == [tid for tid in seen if tid % 2 == 0]


@pytest.mark.parametrize("setup", [name for name in SETUPS if not SETUPS[name].late])
def test_the_order_of_callbacks(setup: str, judges: dict[Host, Judge]) -> None:
    told: Counter[str] = Counter()
    for seed in range(SEEDS):
        live(draw(seed, setup))
    for judge in judges.values():
        for peer in judge.peers.values():
            check(peer.log)
            told.update(what for what, _ in peer.log)
    rarely = "reset" if SETUPS[setup].lossy else "remote_reset"
    for what in ("fast accept", "fast connect", "fast", "usual"):
        assert told[what] > SEEDS, what
    assert told[rarely], "it is no quiet world"
