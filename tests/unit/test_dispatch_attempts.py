"""What is counted of a message that is handed out again."""

from __future__ import annotations

from mpmsgr.dispatch.attempts import Again, charged, suspected


def facts(again: Again[bytes]) -> tuple[bytes, int, int, bool]:
    return again.item, again.attempt, again.deaths, again.alone


def test_a_death_charges() -> None:
    again = charged(b"m")
    assert facts(again) == (b"m", 2, 1, False)
    assert facts(charged(again)) == (b"m", 3, 2, False)


def test_to_begin_once_more_does_not() -> None:
    again = charged(b"m", death=False)
    assert facts(again) == (b"m", 2, 0, False)
    assert facts(charged(charged(again), death=False)) == (b"m", 4, 1, False)


def test_suspicion_counts_an_attempt_only_and_ends_with_the_next_one() -> None:
    again = suspected(b"m")
    assert facts(again) == (b"m", 2, 0, True)
    assert facts(suspected(charged(again))) == (b"m", 4, 1, True)
    assert facts(charged(again)) == (b"m", 3, 1, False), "it was alone, and did it"
    assert facts(charged(again, death=False)) == (b"m", 3, 0, False)


def test_it_is_as_long_as_its_message() -> None:
    assert len(charged(b"four")) == 4
    assert repr(charged(b"four")) == "<Again 2, 1 deaths: b'four'>"
