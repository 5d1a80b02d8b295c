"""States of a session and the moves between them (session spec §2).

A socket in its incoming handshake belongs to no session yet: ACCEPTING is its pipe's business
until the decision of `decision` gives it one.
"""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """What a session is doing."""

    CONNECTING = "connecting"  # a handshake of ours is under way, or waits for its retry
    OPEN = "open"  # usable
    STANDBY = "standby"  # kept without a socket
    WAIT = "wait"  # lost a connection race; the peer's connection will take over
    CLOSED = "closed"  # dead


class Move(Enum):
    """Why a session changes its state."""

    OPENED = "our handshake ended with READY or SEQ"
    ACCEPTED = "an incoming handshake was accepted for it"
    TOLD_TO_WAIT = "the peer answered WAIT"
    RETRY = "a fault, and the session is worth another attempt"
    PARK = "a fault, and nothing to do without the peer"
    SEND = "something was queued, and we are the side that connects"
    END = "a lossy fault, CLOSE, mark_down, a replacement of a lossy session, a time-out"


TRANSITIONS: dict[tuple[State, Move], State] = {
    (State.CONNECTING, Move.OPENED): State.OPEN,
    (State.CONNECTING, Move.TOLD_TO_WAIT): State.WAIT,
    (State.CONNECTING, Move.RETRY): State.CONNECTING,
    (State.CONNECTING, Move.PARK): State.STANDBY,
    (State.OPEN, Move.RETRY): State.CONNECTING,
    (State.OPEN, Move.PARK): State.STANDBY,
    (State.STANDBY, Move.SEND): State.CONNECTING,
    (State.WAIT, Move.RETRY): State.CONNECTING,
    # An incoming connection may take over in any live state, an open one included.
    (State.CONNECTING, Move.ACCEPTED): State.OPEN,
    (State.OPEN, Move.ACCEPTED): State.OPEN,
    (State.STANDBY, Move.ACCEPTED): State.OPEN,
    (State.WAIT, Move.ACCEPTED): State.OPEN,
    (State.CONNECTING, Move.END): State.CLOSED,
    (State.OPEN, Move.END): State.CLOSED,
    (State.STANDBY, Move.END): State.CLOSED,
    (State.WAIT, Move.END): State.CLOSED,
}
