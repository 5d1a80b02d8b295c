"""The window of a worker: about a millisecond of what was measured, within bounds."""

from __future__ import annotations

import pytest

from mpmsgr.dispatch.credit import WINDOW_US, Credit


def measured(us: float, nbytes: int = 0, most: int = 10_000, times: int = 100) -> Credit:
    """After so many batches of ten messages that took *us* each."""
    credit = Credit(most)
    for _ in range(times):
        credit.measured(10, 10 * nbytes, 10 * us)
    return credit


def test_before_anything_is_measured_it_is_small() -> None:
    assert Credit(1000).messages == 32
    assert Credit(5).messages == 5
    assert (Credit(5).nbytes, Credit(5).us_per_message) == (1 << 20, 0)


def test_nothing_completed_is_no_measurement() -> None:
    credit = Credit(1000)
    credit.measured(0, 0, 5000.0)
    assert (credit.messages, credit.us_per_message) == (32, 0)


@pytest.mark.parametrize("us", [50.0, 100.0, 250.0])
def test_it_is_a_window_of_handler_time(us: float) -> None:
    credit = measured(us)
    assert WINDOW_US * 0.95 <= credit.messages * us <= WINDOW_US * 1.1
    assert credit.us_per_message == pytest.approx(us)


def test_shorter_handlers_have_a_larger_window() -> None:
    windows = [measured(us).messages for us in (1.0, 5.0, 10.0, 100.0, 1000.0)]
    assert windows == sorted(windows, reverse=True)
    assert len(set(windows)) == len(windows)


@pytest.mark.parametrize(
    ("us", "most", "messages"),
    [(1e9, 100, 2), (1e9, 1, 1), (0.0, 100, 100), (0.0, 7, 7)],
)
def test_bounds(us: float, most: int, messages: int) -> None:
    assert measured(us, most=most).messages == messages


def test_bytes_have_a_window_of_their_own() -> None:
    assert measured(100.0).nbytes == 1 << 20, "none were measured"
    assert measured(100.0, nbytes=64).nbytes == 1 << 18, "never less"
    credit = measured(100.0, nbytes=1_000_000)
    assert credit.nbytes * 100.0 / 1_000_000 == pytest.approx(WINDOW_US, rel=0.01)


def test_it_follows_better_times_faster_than_worse_ones() -> None:
    better, worse = measured(200.0), measured(200.0)
    better.measured(10, 0, 1000.0)
    worse.measured(10, 0, 3000.0)
    assert 200.0 - better.us_per_message > worse.us_per_message - 200.0 > 0


def test_one_long_batch_is_soon_forgotten_a_change_is_not() -> None:
    credit = measured(100.0)
    usual = credit.messages
    credit.measured(10, 0, 100_000.0)
    for _ in range(10):
        credit.measured(10, 0, 1000.0)
    assert credit.messages == pytest.approx(usual, abs=2)
    for _ in range(100):
        credit.measured(10, 0, 10_000.0)
    assert credit.messages == 2
