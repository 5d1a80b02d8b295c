"""What to answer an incoming connect: the session decision (session spec §5), as a table.

The first row whose condition holds decides. Row numbers are the spec's; row 0 (the reader of the
existing pipe is inside a fast dispatch) concerns threads and cannot occur here. Rows marked with a
letter are this project's answers where the reference livelocks or asserts.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from mpmsgr.session.states import State


class Facts(NamedTuple):
    """All that the decision depends on. Fields of *existing* mean nothing when it is False."""

    existing: bool  # a live session is registered for the peer's address
    state: State  # of the existing session
    existing_lossy: bool
    existing_server: bool
    existing_connect_seq: int
    existing_peer_global_seq: int
    connect_seq: int  # of the connect message
    global_seq: int
    resetcheck: bool  # of our policy for the peer's type
    peer_sorts_first: bool  # peer address < own address, in the reference's order
    anonymous: bool  # our policy keeps lossy clients out of the registry


class Verdict(Enum):
    """What the accepting side does."""

    OPEN = "open a new session"
    REPLACE = "the incoming connection takes the existing session over"
    RESETSESSION = "answer RESETSESSION"
    RETRY_GLOBAL = "answer RETRY_GLOBAL with the known global_seq"
    RETRY_SESSION = "answer RETRY_SESSION with the known connect_seq + 1"
    WAIT = "answer WAIT: our own attempt wins"


class Row(NamedTuple):
    """One row: number, condition in words and in code, verdict.

    resets: the existing session is reset first; hard: the peer lost its session, so READY
    instead of SEQ and in_seq 0.
    """

    number: str
    text: str
    when: Callable[[Facts], bool]
    verdict: Verdict
    resets: bool = False
    hard: bool = False


def _idle(f: Facts) -> bool:
    return f.state in (State.OPEN, State.STANDBY)


def _newer(f: Facts) -> bool:
    return f.connect_seq > f.existing_connect_seq


TABLE: tuple[Row, ...] = (
    Row(
        "A",
        "lossy clients are not registered: every connect opens a session",
        lambda f: f.anonymous,
        Verdict.OPEN,
    ),
    Row(
        "1",
        "no session of ours, the peer remembers one",
        lambda f: not f.existing and f.connect_seq > 0,
        Verdict.RESETSESSION,
    ),
    Row("2", "no session on either side", lambda f: not f.existing, Verdict.OPEN),
    Row(
        "3",
        "an old connect arrived late",
        lambda f: f.global_seq < f.existing_peer_global_seq,
        Verdict.RETRY_GLOBAL,
    ),
    Row(
        "4",
        "the existing session is lossy",
        lambda f: f.existing_lossy,
        Verdict.REPLACE,
        resets=True,
    ),
    Row(
        "5",
        "the peer lost its session (and we check for that)",
        lambda f: f.connect_seq == 0 and f.existing_connect_seq > 0 and f.resetcheck,
        Verdict.REPLACE,
        resets=True,
        hard=True,
    ),
    Row(
        "5b",
        "the peer lost its session (and we do not care)",
        lambda f: f.connect_seq == 0 and f.existing_connect_seq > 0,
        Verdict.REPLACE,
        hard=True,
    ),
    Row(
        "6",
        "the peer's connect_seq is behind",
        lambda f: f.connect_seq < f.existing_connect_seq,
        Verdict.RETRY_SESSION,
    ),
    Row(
        "7a",
        "both 0 and parked before the first success: the reference livelocks here",
        lambda f: not _newer(f) and _idle(f) and f.resetcheck and f.connect_seq == 0,
        Verdict.REPLACE,
    ),
    Row(
        "7",
        "equal connect_seq, the existing session is open or parked",
        lambda f: not _newer(f) and _idle(f),
        Verdict.RETRY_SESSION,
    ),
    Row(
        "8",
        "race, the peer's connection wins",
        lambda f: not _newer(f) and (f.peer_sorts_first or f.existing_server),
        Verdict.REPLACE,
    ),
    Row(
        "8a",
        "race that we have lost or given up already",
        lambda f: not _newer(f) and f.state is not State.CONNECTING,
        Verdict.REPLACE,
    ),
    Row("9", "race, our connection wins", lambda f: not _newer(f), Verdict.WAIT),
    Row(
        "10",
        "the peer remembers a session that ours never was",
        lambda f: f.resetcheck and f.existing_connect_seq == 0,
        Verdict.RESETSESSION,
    ),
    Row("11", "reconnect", lambda f: True, Verdict.REPLACE),
)


def decide(facts: Facts) -> Row:
    """The row that applies."""
    return next(row for row in TABLE if row.when(facts))
