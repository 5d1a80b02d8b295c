"""Ages of what a worker holds, by marks at frames; histograms; keys for people."""

from __future__ import annotations

import pytest

from mpmsgr.pool.ages import Ages
from mpmsgr.pool.histogram import Histogram
from mpmsgr.pool.report import key_text


def test_an_age_is_that_of_the_mark_before_it() -> None:
    ages = Ages()
    assert ages.of(1, 5.0) == 0.0, "nothing is known"
    for number, now in ((1, 10.0), (4, 10.05), (6, 11.0)):
        ages.given(number, now)
    found = [ages.of(number, 12.0) for number in (1, 4, 5, 6, 9)]
    assert found == [2.0, 2.0, 2.0, 1.0, 1.0], "the frame at 10.05 came too soon for a mark"


def test_the_oldest_mark_stands_for_what_was_before_it() -> None:
    ages = Ages()
    for second in range(1, 1001):
        ages.given(second, float(second))
    assert ages.of(1, 1000.0) == 599.0


def test_a_histogram_counts_by_upper_bound() -> None:
    histogram = Histogram()
    for seconds in (0.0, 1e-6, 1.1e-6, 0.3, 1000.0):
        histogram.add(seconds)
    said = histogram.as_dict()
    at = {i: count for i, count in enumerate(said["counts"]) if count}
    assert at == {0: 2, 1: 1, said["le"].index(0.5): 1, len(said["le"]): 1}
    assert said["sum"] == pytest.approx(1000.3000021)


def test_keys_for_people() -> None:
    assert key_text(("user", b"\xa3ann")) == "user=ann"
    assert key_text(("user", b"\xc4\x01\xff")) == "user=0xff"
    assert key_text(((2, 4), b"\x00\x07")) == "front[2:4]=0x0007"
