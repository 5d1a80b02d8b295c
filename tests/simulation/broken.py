"""Rules broken on purpose: the simulation has to notice each of them.

`scripts/simulate --break RULE` shows a history in which it does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

from mpmsgr.session import connector, decision, established, faults
from mpmsgr.session.acceptor import Acceptor
from mpmsgr.session.connector import Connector
from mpmsgr.session.decision import TABLE, Facts, Verdict
from mpmsgr.session.endpoint import Endpoint
from mpmsgr.session.established import Established
from mpmsgr.session.faults import FAULTS
from mpmsgr.session.handled import HandledPrefix
from mpmsgr.session.outbox import Outbox
from mpmsgr.session.pipe import Pipe
from mpmsgr.session.registry import Registry
from mpmsgr.session.session import Session
from mpmsgr.session.states import Move
from mpmsgr.session.upkeep import Upkeep
from mpmsgr.wire.v1 import frames
from mpmsgr.wire.v1.handshake import Reply
from mpmsgr.wire.v1.tags import Tag
from tests.simulation.history import fails
from tests.simulation.plan import Plan, draw


class Rule(NamedTuple):
    """What is replaced by what: (owner, attribute or key, replacement); in which setup it matters.

    hint: a seed that shows it; many do, but some of them are rare.
    """

    setup: str
    owner: Any
    name: Any
    replacement: Any
    hint: int = 0


def _skip_requeue(self: Outbox) -> None:
    self.nbytes -= sum(parcel.size for parcel in self.sent)
    self.sent.clear()


def _requeue_behind(self: Outbox) -> None:
    sent, self.sent = self.sent, []
    self.out_seq -= len(sent)
    self.nbytes -= sum(parcel.size for parcel in sent)
    self.put(sent)


def _forget_in_seq(self: Acceptor, session: Session, *args: Any) -> bool:
    session.in_seq = session.in_seq_acked = 0
    return _open(self, session, *args)


_open = Acceptor._open


def _take_repeats(self: Established, seq: int) -> bool:
    self.session.in_seq = max(self.session.in_seq, seq)
    return True


def _reset_silently(self: Session, rng: Any) -> tuple[list[int], list[int]]:
    _reset(self, rng)
    return [], []


_reset = Session.reset


def _highest_handled(self: HandledPrefix, seq: int) -> bool:
    self.prefix = max(self.prefix, seq)
    return True


def _end_silently(self: Endpoint, session: Session, cause: str) -> None:
    self.mark_down(session)


def _no_deadline(self: Endpoint, target: Pipe | Session, now: float) -> None:
    if isinstance(target, Session):
        _wake(self, target, now)


_wake = Endpoint.wake


def _wait_for_ever(self: Connector, reply: Reply, now: float) -> bool:
    self._session.move(Move.TOLD_TO_WAIT)
    self._pipe.deadline = None
    self._session.retry_at = 1e9
    self._step = self._read_nothing
    return True


def _nothing(*args: Any) -> None:
    pass


def _table(number: str, **changes: Any) -> tuple[decision.Row, ...]:
    return tuple(row._replace(**changes) if row.number == number else row for row in TABLE)


def _higher_address_wins(f: Facts) -> bool:
    return f.connect_seq <= f.existing_connect_seq and not f.peer_sorts_first


_encode_ack = frames.encode_ack
_retry = connector.Connector._on_retry_global

BROKEN: dict[str, Rule] = {
    "skip-requeue": Rule("client-server", Outbox, "requeue_sent", _skip_requeue),
    "requeue-behind": Rule("client-server", Outbox, "requeue_sent", _requeue_behind),
    "ack-too-early": Rule(
        "client-server", established, "encode_ack", lambda seq: _encode_ack(seq + 1)
    ),
    "never-ack": Rule("client-server", Established, "ack_due", _nothing),
    "forget-in-seq": Rule("client-server", Acceptor, "_open", _forget_in_seq),
    "resend-all": Rule("client-server", Outbox, "discard_requeued_up_to", _nothing),
    "take-repeats": Rule("client-server", Established, "_counts", _take_repeats, 31),
    "wrong-race-winner": Rule(
        "reusing-peers", decision, "TABLE", _table("8", when=_higher_address_wins)
    ),
    "wait-for-ever": Rule("reusing-peers", connector._ON_TAG, Tag.WAIT, _wait_for_ever, 181),
    "ignore-global-seq": Rule(
        "client-server", decision, "TABLE", _table("3", when=lambda f: False), 136
    ),
    "accept-the-unknown": Rule(
        "client-server", decision, "TABLE", _table("1", verdict=Verdict.OPEN), 37
    ),
    "ignore-the-reset": Rule("client-server", connector._ON_TAG, Tag.RESETSESSION, _retry, 9),
    "reset-silently": Rule("client-server", Session, "reset", _reset_silently, 28),
    "end-silently": Rule("client-server", Endpoint, "end", _end_silently, 62),
    "keep-the-address": Rule("client-server", Registry, "_forget_addr", _nothing),
    "lossy-goes-on": Rule("lossy", faults, "FAULTS", FAULTS[1:]),
    "ack-any-handled": Rule("late-server", HandledPrefix, "handled", _highest_handled),
    "announce-received": Rule("late-peers", Session, "ack_seq", property(lambda self: self.in_seq)),
    "ack-repeats-in-work": Rule(
        "late-server", HandledPrefix, "in_work", lambda self, seq: False, 221
    ),
    "no-keepalive": Rule("client-server", Upkeep, "watch", _nothing, 60),
    "no-handshake-deadline": Rule("client-server", Endpoint, "wake", _no_deadline),
}


@contextmanager
def broken(name: str) -> Iterator[None]:
    """Break the rule *name* inside the block."""
    _, owner, part, replacement, _ = BROKEN[name]
    if isinstance(owner, dict):
        with patch.dict(owner, {part: replacement}):
            yield
    else:
        with patch.object(owner, part, replacement):
            yield


def noticed(name: str, seeds: int) -> Plan | None:
    """The first of *seeds* plans whose history shows that rule *name* is broken."""
    rule = BROKEN[name]
    with broken(name):
        for seed in range(rule.hint, rule.hint + seeds):
            plan = draw(seed, rule.setup)
            if fails(plan):
                return plan
    return None
