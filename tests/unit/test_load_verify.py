from __future__ import annotations

import pytest

from mpmsgr.load.payload import Parts
from mpmsgr.load.verify import SessionCheck, Tally

PARTS: Parts = (b"front", b"middle", b"data")


def check(echo: bool = True, asked: int = 3) -> SessionCheck:
    session = SessionCheck(Tally(), echo=echo)
    for tid in range(1, asked + 1):
        session.asked(tid, PARTS, now=float(tid))
    return session


def broken(tally: Tally) -> tuple[int, int, int, int]:
    return tally.lost, tally.duplicated, tally.reordered, tally.corrupted


def test_every_reply_once_in_order_intact() -> None:
    session = check()
    assert [session.replied(tid, PARTS, now=10.0) for tid in (1, 2, 3)] == [9.0, 8.0, 7.0]
    assert session.close() == 0
    assert (session.tally.sent, session.tally.answered) == (3, 3)
    assert broken(session.tally) == (0, 0, 0, 0)


def test_what_got_no_reply_is_lost() -> None:
    session = check()
    session.replied(2, PARTS, now=10.0)
    assert session.outstanding == 2
    assert session.close() == 2
    assert broken(session.tally) == (2, 0, 0, 0)


def test_a_second_reply_is_a_duplicate() -> None:
    session = check()
    session.replied(1, PARTS, now=10.0)
    assert session.replied(1, PARTS, now=11.0) is None
    assert session.failed(1, 1, now=11.0) is None
    assert (session.tally.answered, broken(session.tally)) == (1, (0, 2, 0, 0))


def test_a_reply_after_a_later_one_is_reordered() -> None:
    session = check()
    for tid in (2, 1, 3):
        session.replied(tid, PARTS, now=10.0)
    assert broken(session.tally) == (0, 0, 1, 0)


@pytest.mark.parametrize("tid", [0, 4, 1 << 40])
def test_a_reply_nobody_asked_for_is_corruption(tid: int) -> None:
    session = check()
    assert session.replied(tid, PARTS, now=10.0) is None
    assert broken(session.tally) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    "parts",
    [(b"fronT", b"middle", b"data"), (b"front", b"", b"data"), (b"front", b"middle", b"data+")],
)
def test_an_echo_must_bring_every_part_back(parts: Parts) -> None:
    session = check()
    assert session.replied(1, parts, now=10.0) == 9.0
    assert broken(session.tally) == (0, 0, 0, 1)


def test_other_handlers_bring_the_front_in_middle() -> None:
    session = check(echo=False)
    session.replied(1, (b"result", b"front", b"x"), now=10.0)
    session.replied(2, (b"front", b"middle", b"data"), now=10.0)
    assert broken(session.tally) == (0, 0, 0, 1)


def test_error_replies_answer_and_are_counted_by_code() -> None:
    session = check()
    assert session.failed(1, 7, now=10.0) == 9.0
    session.failed(2, 7, now=10.0)
    session.failed(3, 8, now=10.0)
    assert session.tally.answered == 3
    assert session.tally.errors == {7: 2, 8: 1}
    assert broken(session.tally) == (0, 0, 0, 0)


def test_after_a_reset_the_session_goes_on() -> None:
    session = check()
    assert session.close() == 3
    session.asked(4, PARTS, now=20.0)
    assert session.replied(4, PARTS, now=21.0) == 1.0
    assert broken(session.tally) == (3, 0, 0, 0)


def test_tallies_add_up() -> None:
    first, second = check().tally, check().tally
    first.errors[1] = 2
    second.errors[1] = 3
    first.add(second)
    assert (first.sent, first.errors[1]) == (6, 5)
