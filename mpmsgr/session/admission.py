"""Who is let in: the connects that get no session although the decision would give them one."""

from __future__ import annotations

from enum import Enum

from mpmsgr.session.decision import Facts, Row, Verdict


class Refusal(Enum):
    """Why nobody new is let in."""

    LAME_DUCK = "lame_duck"
    MAX_SESSIONS = "max_sessions"


def refusal(
    row: Row, facts: Facts, *, lame_duck: bool, sessions: int, max_sessions: int
) -> Refusal | None:
    """Why a connect with these *facts*, which *row* decides, is refused; None: it is not.

    sessions: how many there are; max_sessions: how many there may be, 0 = any number. A lame duck
    lets in whose session goes on; a full endpoint also who begins anew in the place of a session
    of its own. Who would be told that its session is gone is refused before: it keeps what waits.
    """
    adds = not facts.existing or row.verdict is Verdict.OPEN
    if lame_duck and (adds or facts.existing_lossy or row.hard):
        return Refusal.LAME_DUCK
    if adds and 0 < max_sessions <= sessions:
        return Refusal.MAX_SESSIONS
    return None
