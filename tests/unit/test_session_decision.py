"""The session decision (session spec §5): every row by its number."""

from __future__ import annotations

from typing import Any

import pytest

from mpmsgr.session.decision import TABLE, Facts, Verdict, decide
from mpmsgr.session.states import State

#: A live session, opened once, whose peer comes back with the next connect_seq.
RECONNECT = Facts(
    existing=True,
    state=State.STANDBY,
    existing_lossy=False,
    existing_server=True,
    existing_connect_seq=1,
    existing_peer_global_seq=10,
    connect_seq=2,
    global_seq=11,
    resetcheck=True,
    peer_sorts_first=False,
    anonymous=False,
)
#: Two peers connect to each other for the first time.
RACE = RECONNECT._replace(
    state=State.CONNECTING,
    existing_server=False,
    existing_connect_seq=0,
    existing_peer_global_seq=0,
    connect_seq=0,
)

CASES: list[tuple[str, Facts, dict[str, Any], Verdict]] = [
    ("A", RECONNECT, {"anonymous": True}, Verdict.OPEN),
    ("A", RECONNECT, {"anonymous": True, "existing": False}, Verdict.OPEN),
    ("1", RECONNECT, {"existing": False}, Verdict.RESETSESSION),
    ("1", RECONNECT, {"existing": False, "connect_seq": 1, "resetcheck": False},
     Verdict.RESETSESSION),
    ("2", RECONNECT, {"existing": False, "connect_seq": 0}, Verdict.OPEN),
    ("3", RECONNECT, {"global_seq": 9}, Verdict.RETRY_GLOBAL),
    ("3", RECONNECT, {"global_seq": 9, "existing_lossy": True}, Verdict.RETRY_GLOBAL),
    ("3", RECONNECT, {"global_seq": 9, "connect_seq": 0}, Verdict.RETRY_GLOBAL),
    ("11", RECONNECT, {"global_seq": 10}, Verdict.REPLACE),
    ("4", RECONNECT, {"existing_lossy": True}, Verdict.REPLACE),
    ("4", RACE, {"existing_lossy": True}, Verdict.REPLACE),
    ("5", RECONNECT, {"connect_seq": 0}, Verdict.REPLACE),
    ("5", RECONNECT, {"connect_seq": 0, "state": State.OPEN}, Verdict.REPLACE),
    ("5b", RECONNECT, {"connect_seq": 0, "resetcheck": False}, Verdict.REPLACE),
    ("6", RECONNECT, {"existing_connect_seq": 3}, Verdict.RETRY_SESSION),
    ("6", RECONNECT, {"existing_connect_seq": 3, "state": State.CONNECTING},
     Verdict.RETRY_SESSION),
    ("6", RECONNECT, {"existing_connect_seq": 3, "state": State.WAIT}, Verdict.RETRY_SESSION),
    ("7", RECONNECT, {"existing_connect_seq": 2}, Verdict.RETRY_SESSION),
    ("7", RECONNECT, {"existing_connect_seq": 2, "state": State.OPEN}, Verdict.RETRY_SESSION),
    ("7", RACE, {"state": State.STANDBY, "resetcheck": False}, Verdict.RETRY_SESSION),
    ("7a", RACE, {"state": State.STANDBY}, Verdict.REPLACE),
    ("8", RACE, {"peer_sorts_first": True}, Verdict.REPLACE),
    ("8", RACE, {"existing_server": True}, Verdict.REPLACE),
    ("8", RACE, {"state": State.WAIT, "peer_sorts_first": True}, Verdict.REPLACE),
    ("8a", RACE, {"state": State.WAIT}, Verdict.REPLACE),
    ("9", RACE, {}, Verdict.WAIT),
    ("9", RACE, {"connect_seq": 2, "existing_connect_seq": 2}, Verdict.WAIT),
    ("10", RACE, {"connect_seq": 1}, Verdict.RESETSESSION),
    ("10", RACE, {"connect_seq": 1, "state": State.STANDBY}, Verdict.RESETSESSION),
    ("11", RACE, {"connect_seq": 1, "resetcheck": False}, Verdict.REPLACE),
    ("11", RECONNECT, {}, Verdict.REPLACE),
    ("11", RECONNECT, {"state": State.OPEN}, Verdict.REPLACE),
    ("11", RECONNECT, {"state": State.CONNECTING}, Verdict.REPLACE),
    ("11", RECONNECT, {"state": State.WAIT}, Verdict.REPLACE),
]  # fmt: skip


@pytest.mark.parametrize(("number", "base", "changes", "verdict"), CASES)
def test_row(number: str, base: Facts, changes: dict[str, Any], verdict: Verdict) -> None:
    row = decide(base._replace(**changes))
    assert (row.number, row.verdict) == (number, verdict)


def test_every_row_has_a_case() -> None:
    assert {row.number for row in TABLE} == {number for number, *_ in CASES}


def test_numbers_are_the_specs_in_its_order() -> None:
    numbers = [row.number for row in TABLE if row.number.isdecimal()]
    assert numbers == [str(n) for n in range(1, 12)]  # row 0 concerns threads
    assert len({row.number for row in TABLE}) == len(TABLE)


def test_what_is_reset_and_what_starts_from_zero() -> None:
    assert {row.number for row in TABLE if row.resets} == {"4", "5"}
    assert {row.number for row in TABLE if row.hard} == {"5", "5b"}


def test_the_last_row_always_holds() -> None:
    assert TABLE[-1].when(RACE)
    assert TABLE[-1].when(RECONNECT)
