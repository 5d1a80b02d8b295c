from __future__ import annotations

import json
import math

from hypothesis import given
from hypothesis import strategies as st

from mpmsgr.load.latency import Histogram

durations = st.floats(min_value=1e-4, max_value=3600)


def histogram(values: list[float]) -> Histogram:
    made = Histogram()
    for value in values:
        made.record(value)
    return made


def test_nothing_counted() -> None:
    assert Histogram().percentile(99) == 0.0


def test_a_thousand_milliseconds() -> None:
    made = histogram([n / 1000 for n in range(1, 1001)])
    for percent in (50, 90, 99, 99.9):
        assert abs(made.percentile(percent) - percent / 100) <= percent / 100 * 0.017
    assert made.percentile(100) == made.max_s == 1.0


@given(durations)
def test_one_value_is_known_to_two_percent(value: float) -> None:
    made = histogram([value, 4000.0, 4000.0])
    assert value * 0.98 <= made.percentile(30) <= value * 1.02 + 1e-6


@given(st.lists(durations, min_size=1), st.lists(durations))
def test_merged_is_as_counted_together(left: list[float], right: list[float]) -> None:
    merged = histogram(left)
    merged.merge(Histogram.from_dict(json.loads(json.dumps(histogram(right).as_dict()))))
    assert merged.as_dict() == histogram(left + right).as_dict()
    assert merged.count == len(left) + len(right)


@given(st.lists(durations, min_size=1))
def test_percentiles_rise_and_never_pass_the_maximum(values: list[float]) -> None:
    made = histogram(values)
    marks = [made.percentile(percent) for percent in (0, 50, 90, 99, 99.9, 100)]
    assert marks == sorted(marks)
    assert math.isclose(marks[-1], max(values))
