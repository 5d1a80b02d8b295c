"""Delays between attempts (session spec §10, rows 6 to 8)."""

from __future__ import annotations

from random import Random

import pytest

from mpmsgr.session.backoff import Backoff
from mpmsgr.session.endpoint import Timing
from mpmsgr.session.policy import LOSSLESS_CLIENT
from mpmsgr.session.states import State
from tests.dialogue import START, Dialogue

AFTER_A_LOSS = [0, 0, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15, 15, 15]


def attempts(talk: Dialogue, count: int) -> list[float]:
    """Seconds between a failure and the dial that follows it, *count* times."""
    delays = []
    for _ in range(count):
        failed_at, dials = talk.now, len(talk.dials)
        talk.refused()
        if len(talk.dials) == dials:
            talk.until_dial()
        delays.append(round(talk.now - failed_at, 6))
    return delays


def test_delays_after_losing_an_open_connection() -> None:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    talk.connect()
    line = talk.open_outgoing()
    talk.turn(5.0)
    line.breaks()
    assert talk.dial_times == [START, START + 5.0]  # row 6: at once
    assert [0, *attempts(talk, 11)] == AFTER_A_LOSS


def test_the_same_delays_before_the_first_success() -> None:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    talk.connect()
    assert attempts(talk, 11) == AFTER_A_LOSS[1:]


def test_a_success_begins_anew() -> None:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    session = talk.connect()
    assert attempts(talk, 5) == [0, 0.2, 0.4, 0.8, 1.6]
    assert session.attempts == 6
    line = talk.open_outgoing()
    assert session.attempts == 0
    line.breaks()
    assert session.state is State.CONNECTING
    assert attempts(talk, 4) == [0, 0.2, 0.4, 0.8]


def test_a_handshake_that_fails_counts_as_well() -> None:
    talk = Dialogue(LOSSLESS_CLIENT, port=0)
    talk.connect()
    delays = []
    for _ in range(4):
        line, failed_at = talk.dialled(), talk.now
        dials = len(talk.dials)
        line.says(b"HTTP/1.1 400")
        if len(talk.dials) == dials:
            talk.until_dial()
        delays.append(round(talk.now - failed_at, 6))
    assert delays == [0, 0.2, 0.4, 0.8]


def test_other_bounds() -> None:
    timing = Timing(initial_backoff_s=1.0, max_backoff_s=3.0, jitter=False)
    talk = Dialogue(LOSSLESS_CLIENT, port=0, timing=timing)
    talk.connect()
    assert attempts(talk, 5) == [0, 1, 2, 3, 3]


def test_full_jitter_spreads_each_delay_over_all_of_it() -> None:
    plain = Backoff(0.2, 15.0)
    bounds = [0.0]
    for _ in range(11):
        bounds.append(plain.after(bounds[-1]))
    assert [plain.spread(bound) for bound in bounds] == bounds
    jittered = [Backoff(0.2, 15.0, Random(seed)) for seed in range(200)]
    for bound in bounds:
        delays = [backoff.spread(bound) for backoff in jittered]
        assert all(0 <= delay <= bound for delay in delays)
        if bound:
            assert min(delays) > 0
            assert min(delays) < 0.1 * bound
            assert max(delays) > 0.9 * bound
            assert sum(delays) / len(delays) == pytest.approx(bound / 2, rel=0.2)


def test_jitter_is_on_unless_told_otherwise() -> None:
    assert Timing().jitter
