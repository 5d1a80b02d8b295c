"""What a lost socket means for its session (session spec §10), as a table.

The first row whose condition holds decides. Rows 1 and 2 of the spec (a reader's fault while
connecting, a fault of a closed session) concern threads and cannot occur here.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from mpmsgr.session.states import State


class FaultFacts(NamedTuple):
    """All that the decision depends on."""

    state: State
    lossy: bool
    server: bool
    standby: bool
    queued: bool


class FaultResult(Enum):
    """What to do."""

    END = "drop the queues, reset event"
    PARK = "STANDBY"
    RECONNECT = "connect_seq + 1, connect at once"
    BACK_OFF = "connect again after the next delay"


class FaultRow(NamedTuple):
    """A row: its number in the spec, its condition and its result."""

    number: int
    when: Callable[[FaultFacts], bool]
    result: FaultResult


FAULTS: tuple[FaultRow, ...] = (
    FaultRow(3, lambda f: f.lossy and f.state is not State.CONNECTING, FaultResult.END),
    FaultRow(4, lambda f: f.standby and not f.queued, FaultResult.PARK),
    FaultRow(5, lambda f: f.state is not State.CONNECTING and f.server, FaultResult.PARK),
    FaultRow(6, lambda f: f.state is not State.CONNECTING, FaultResult.RECONNECT),
    FaultRow(7, lambda f: True, FaultResult.BACK_OFF),  # with row 8: `Backoff` knows the delays
)


def decide_fault(facts: FaultFacts) -> FaultRow:
    """The row that applies."""
    return next(row for row in FAULTS if row.when(facts))
