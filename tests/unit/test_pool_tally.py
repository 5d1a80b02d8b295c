"""Ages of what a worker holds, and durations, by marks at frames."""

from __future__ import annotations

import pytest

from mpmsgr.dispatch.lanes import Lane
from mpmsgr.pool.ages import Ages
from mpmsgr.pool.report import key_text
from mpmsgr.pool.tally import Histogram


def lane(*numbers: int) -> Lane[bytes]:
    """One with these items in flight."""
    made: Lane[bytes] = Lane(1)
    made.numbers += numbers
    return made


def test_an_age_is_that_of_the_mark_before_it() -> None:
    ages = Ages()
    assert ages.of(1, 5.0) == 0.0, "nothing is known"
    for number, now in ((1, 10.0), (4, 10.05), (6, 11.0)):
        ages.given(lane(number), number, now)
    found = [ages.of(number, 12.0) for number in (1, 4, 5, 6, 9)]
    assert found == [2.0, 2.0, 2.0, 1.0, 1.0], "the frame at 10.05 came too soon for a mark"


def test_the_oldest_mark_stands_for_what_was_before_it() -> None:
    ages = Ages()
    for second in range(1, 1001):
        ages.given(lane(second), second, float(second))
    assert ages.of(1, 1000.0) == 599.0


def test_one_item_at_a_time_is_watched() -> None:
    ages, first = Ages(), lane(1, 2)
    assert ages.took(1.0) is None
    ages.given(first, 1, 1.0)
    ages.given(lane(3), 3, 2.0)  # the first one is not done
    assert ages.took(2.5) is None
    first.numbers.remove(1)
    assert ages.took(3.0) == 2.0
    assert ages.took(4.0) is None
    ages.given(lane(4), 4, 5.0)
    ages.taken_back()
    assert ages.took(6.0) is None


def test_a_histogram_counts_by_upper_bound() -> None:
    histogram = Histogram()
    for seconds in (0.0, 1e-5, 1.1e-5, 0.3, 1000.0):
        histogram.add(seconds)
    said = histogram.as_dict()
    at = {i: count for i, count in enumerate(said["counts"]) if count}
    assert at == {0: 2, 1: 1, said["le"].index(0.5): 1, len(said["le"]): 1}
    assert said["sum"] == pytest.approx(1000.300021)


def test_keys_for_people() -> None:
    assert key_text(("user", b"\xa3ann")) == "user=ann"
    assert key_text(("user", b"\xc4\x01\xff")) == "user=0xff"
    assert key_text(((2, 4), b"\x00\x07")) == "front[2:4]=0x0007"
