"""A callback at work: what it sends and what it does to the state, until it completes or fails."""

from __future__ import annotations

from typing import Any

import pytest

from mpmsgr.dispatch.handling import Handling
from mpmsgr.dispatch.invocation import Invocation
from mpmsgr.dispatch.serial import Serial
from mpmsgr.dispatch.state import StateError


def running(lane: Serial | None = None, limit: int = 1 << 16) -> Invocation:
    """One that has asked for its state."""
    run = Invocation()
    run.lane = lane or Serial()
    run.state = run.lane.state_of(limit)
    return run


def applied(run: Invocation) -> dict[Any, Any]:
    assert run.state is not None
    return run.state.value


def test_what_it_sends_is_held_until_it_is_done() -> None:
    run = Invocation()
    assert run.holds
    run.done = True
    assert not run.holds
    streaming = Invocation()
    streaming.handling = Handling(streaming=True)
    assert not streaming.holds


def test_sends_are_kept_in_order_and_counted() -> None:
    run = Invocation()
    assert run.plain
    for i in range(3):
        run.hold(i, 10)
    assert (run.sends, run.held_bytes, run.plain) == ([0, 1, 2], 30, False)
    assert Invocation().sends is None, "nothing is shared"


def test_what_fails_sends_nothing_and_leaves_the_state_alone() -> None:
    run = running()
    applied(run)["sum"] = 1
    run.hold("reply", 10)
    run.undo()
    assert not run.sends
    assert (run.held_bytes, applied(run)) == (0, {})
    run.commit_state()
    assert run.change is None


def test_the_state_is_that_of_the_lane() -> None:
    lane = Serial(5)
    first = running(lane)
    applied(first)["sum"] = 1
    first.commit_state()
    assert first.change is not None
    second = running(lane)
    assert applied(second) == {"sum": 1}
    second.commit_state()
    assert second.change is None, "it did not change it"


def test_a_state_that_cannot_be_kept_changes_nothing() -> None:
    lane = Serial()
    before = running(lane, limit=20)
    applied(before)["sum"] = 1
    before.commit_state()
    run = running(lane)
    applied(run)["text"] = "x" * 20
    with pytest.raises(StateError):
        run.commit_state()
    assert run.change is None
    run.undo()
    assert applied(running(lane)) == {"sum": 1}


def test_without_a_state_there_is_none_to_commit() -> None:
    run = Invocation()
    run.commit_state()
    run.undo()
    assert (run.change, run.state) == (None, None)


def test_what_waits_in_a_lane_is_taken_once() -> None:
    lane: Any = Serial(5)
    lane.waiting += [("con", "accept", 1), ("con", "reset", 2)]
    assert lane.take_waiting() == [("con", "accept", 1), ("con", "reset", 2)]
    assert lane.take_waiting() == []
    assert (lane.id, lane.blocked, lane.state) == (5, 0, None)
