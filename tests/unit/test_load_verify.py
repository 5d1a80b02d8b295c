from __future__ import annotations

import pytest

from mpmsgr.load.verify import SessionCheck, Tally


def check(asked: int = 3) -> SessionCheck:
    session = SessionCheck(Tally())
    for tid in range(1, asked + 1):
        session.asked(range(tid, tid + 1), now=float(tid))
    return session


def broken(tally: Tally) -> tuple[int, int, int, int]:
    return tally.lost, tally.duplicated, tally.reordered, tally.corrupted


def test_every_reply_once_in_order_intact() -> None:
    session = check()
    assert [session.replied(tid, True, now=10.0) for tid in (1, 2, 3)] == [9.0, 8.0, 7.0]
    assert session.close() == 0
    assert (session.tally.sent, session.tally.answered) == (3, 3)
    assert broken(session.tally) == (0, 0, 0, 0)


def test_requests_may_leave_together() -> None:
    session = SessionCheck(Tally())
    session.asked(range(1, 5), now=1.0)
    assert (session.outstanding, session.tally.sent) == (4, 4)
    assert session.replied(4, True, now=3.0) == 2.0


def test_what_got_no_reply_is_lost() -> None:
    session = check()
    session.replied(2, True, now=10.0)
    assert session.outstanding == 2
    assert session.close() == 2
    assert broken(session.tally) == (2, 0, 0, 0)


def test_a_second_reply_is_a_duplicate() -> None:
    session = check()
    session.replied(1, True, now=10.0)
    assert session.replied(1, True, now=11.0) is None
    assert session.failed(1, 1, now=11.0) is None
    assert (session.tally.answered, broken(session.tally)) == (1, (0, 2, 0, 0))
    assert not session.tally.errors


def test_a_reply_after_a_later_one_is_reordered() -> None:
    session = check()
    for tid in (2, 1, 3):
        session.replied(tid, True, now=10.0)
    assert broken(session.tally) == (0, 0, 1, 0)


@pytest.mark.parametrize("tid", [0, 4, 1 << 40])
def test_a_reply_nobody_asked_for_is_corruption(tid: int) -> None:
    session = check()
    assert session.replied(tid, True, now=10.0) is None
    assert broken(session.tally) == (0, 0, 0, 1)


def test_other_bytes_are_corruption() -> None:
    session = check()
    assert session.replied(1, False, now=10.0) == 9.0
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
    session.asked(range(4, 5), now=20.0)
    assert session.replied(4, True, now=21.0) == 1.0
    assert broken(session.tally) == (3, 0, 0, 0)


def test_what_is_sent_again_is_not_lost() -> None:
    session = check()
    assert session.close(kept=(3, 99)) == 2
    assert session.replied(3, True, now=10.0) == 7.0
    assert broken(session.tally) == (2, 0, 0, 0)


def test_tallies_add_up() -> None:
    first, second = check().tally, check().tally
    first.errors[1] = 2
    second.errors[1] = 3
    first.add(second)
    assert (first.sent, first.errors[1]) == (6, 5)
